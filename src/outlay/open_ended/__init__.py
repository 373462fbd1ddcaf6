"""Open-ended schedules: multipliers that follow the amount spent and need no total."""

from __future__ import annotations

from outlay.open_ended.base import OpenSchedule
from outlay.open_ended.hold import Hold
from outlay.open_ended.infinite import Infinite
from outlay.open_ended.inverse_root import InverseRoot
from outlay.open_ended.power import Power

METHODS: dict[str, type] = {
    "hold": Hold,
    "infinite": Infinite,
    "power": Power,
    "inverse_root": InverseRoot,
}

__all__ = ["METHODS", "Hold", "Infinite", "InverseRoot", "OpenSchedule", "Power"]
