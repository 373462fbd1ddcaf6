"""Inner rules: what turns a gradient, whole or projected, into a direction."""

from __future__ import annotations

from outlay.inner_rules.adafactor import Adafactor
from outlay.inner_rules.adam import Adam
from outlay.inner_rules.base import Direction, InnerRule
from outlay.inner_rules.lion import Lion
from outlay.inner_rules.natural import Natural
from outlay.inner_rules.sgd import Sgd
from outlay.inner_rules.sign import Sign

METHODS: dict[str, type] = {
    "adam": Adam,
    "natural": Natural,
    "adafactor": Adafactor,
    "lion": Lion,
    "sgd": Sgd,
    "sign": Sign,
}

__all__ = ["METHODS", "Adam", "Direction", "Adafactor", "Lion", "Sgd", "Sign", "InnerRule", "Natural"]
