"""Objectives: what a batch teaches."""

from __future__ import annotations

from outlay.objectives.base import Objective
from outlay.objectives.classification import Classification
from outlay.objectives.dft import AnchoredFineTuning, DynamicFineTuning
from outlay.objectives.distillation import Distillation
from outlay.objectives.dr_grpo import DrGrpo
from outlay.objectives.f_divergence import FDivergence
from outlay.objectives.grpo import Grpo
from outlay.objectives.next_token import NextToken
from outlay.objectives.own_loss import OwnLoss
from outlay.objectives.pass_at_n import PassAtN, PassAtNClassification
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.objectives.reinforce import Reinforce
from outlay.objectives.variational import Variational

METHODS: dict[str, type] = {
    "next_token": NextToken,
    "classification": Classification,
    "own_loss": OwnLoss,
    "variational": Variational,
    "dft": DynamicFineTuning,
    "asft": AnchoredFineTuning,
    "f_divergence": FDivergence,
    "pass_at_n": PassAtN,
    "pass_at_n_classification": PassAtNClassification,
    "distillation": Distillation,
    "policy_gradient": PolicyGradient,
    "reinforce": Reinforce,
    "grpo": Grpo,
    "dr_grpo": DrGrpo,
}

__all__ = [
    "METHODS",
    "AnchoredFineTuning",
    "Classification",
    "Distillation",
    "DrGrpo",
    "DynamicFineTuning",
    "FDivergence",
    "Grpo",
    "NextToken",
    "Objective",
    "OwnLoss",
    "PassAtN",
    "PassAtNClassification",
    "PolicyGradient",
    "Reinforce",
    "Variational",
]
