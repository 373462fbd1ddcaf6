"""Advantages: how much better than expected an answer was."""

from __future__ import annotations

from outlay.advantages.base import Advantage, Learns
from outlay.advantages.best_only import BestOnly, PositiveOnly
from outlay.advantages.generalised import Generalised
from outlay.advantages.greedy import Greedy
from outlay.advantages.group import Group
from outlay.advantages.leave_one_out import LeaveOneOut
from outlay.advantages.shifted import Shifted, baseline_for, effective_share
from outlay.advantages.to_go import ToGo
from outlay.advantages.whitened import Whitened

METHODS: dict[str, type] = {
    "group": Group,
    "leave_one_out": LeaveOneOut,
    "greedy": Greedy,
    "to_go": ToGo,
    "generalised": Generalised,
    "whitened": Whitened,
    "shifted": Shifted,
    "best_only": BestOnly,
    "positive_only": PositiveOnly,
}

__all__ = [
    "METHODS",
    "Advantage",
    "BestOnly",
    "Generalised",
    "Greedy",
    "Group",
    "Learns",
    "LeaveOneOut",
    "PositiveOnly",
    "Shifted",
    "ToGo",
    "Whitened",
    "baseline_for",
    "effective_share",
]
