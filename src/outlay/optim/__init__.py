"""Optimizers, each with the weight of its state."""

from __future__ import annotations

from outlay.optim.adamw import AdamW
from outlay.optim.base import OptimizerSpec, follow
from outlay.optim.sgd import Sgd

METHODS: dict[str, type] = {
    "adamw": AdamW,
    "sgd": Sgd,
}

__all__ = ["METHODS", "AdamW", "OptimizerSpec", "Sgd", "follow"]
