"""Objectives: what a batch teaches."""

from __future__ import annotations

from outlay.objectives.base import Objective
from outlay.objectives.classification import Classification
from outlay.objectives.dr_grpo import DrGrpo
from outlay.objectives.grpo import Grpo
from outlay.objectives.next_token import NextToken
from outlay.objectives.own_loss import OwnLoss
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.objectives.reinforce import Reinforce
from outlay.objectives.variational import Variational

METHODS: dict[str, type] = {
    "next_token": NextToken,
    "classification": Classification,
    "own_loss": OwnLoss,
    "variational": Variational,
    "policy_gradient": PolicyGradient,
    "reinforce": Reinforce,
    "grpo": Grpo,
    "dr_grpo": DrGrpo,
}

__all__ = [
    "METHODS",
    "Classification",
    "DrGrpo",
    "Grpo",
    "NextToken",
    "Objective",
    "OwnLoss",
    "PolicyGradient",
    "Reinforce",
    "Variational",
]
