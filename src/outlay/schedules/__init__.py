"""Schedules: open-loop profiles on the budget clock, for any knob."""

from __future__ import annotations

from outlay.schedules.base import Schedule
from outlay.schedules.compose import Product, Sequence
from outlay.schedules.constant import Constant
from outlay.schedules.cosine import Cosine
from outlay.schedules.linear import Linear
from outlay.schedules.rex import Rex
from outlay.schedules.sampled import Sampled
from outlay.schedules.warmup import Warmup
from outlay.schedules.warmup_stable_decay import WarmupStableDecay

METHODS: dict[str, type] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "rex": Rex,
    "warmup_stable_decay": WarmupStableDecay,
    "warmup": Warmup,
    "sampled": Sampled,
    "product": Product,
    "sequence": Sequence,
}

__all__ = [
    "METHODS",
    "Constant",
    "Cosine",
    "Linear",
    "Product",
    "Rex",
    "Sampled",
    "Schedule",
    "Sequence",
    "Warmup",
    "WarmupStableDecay",
]
