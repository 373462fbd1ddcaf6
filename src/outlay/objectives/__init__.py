"""Objectives: what a batch teaches."""

from __future__ import annotations

from outlay.objectives.base import Objective
from outlay.objectives.classification import Classification
from outlay.objectives.next_token import NextToken
from outlay.objectives.own_loss import OwnLoss
from outlay.objectives.variational import Variational

METHODS: dict[str, type] = {
    "next_token": NextToken,
    "classification": Classification,
    "own_loss": OwnLoss,
    "variational": Variational,
}

__all__ = [
    "METHODS",
    "Classification",
    "NextToken",
    "Objective",
    "OwnLoss",
    "Variational",
]
