"""Evaluations: what is measured on held-out data."""

from __future__ import annotations

from outlay.evaluations.base import Exam, Sitting
from outlay.evaluations.domain_losses import DomainLosses
from outlay.evaluations.exact_match import ExactMatch
from outlay.evaluations.held_out_loss import HeldOutLoss
from outlay.evaluations.sampled_match import SampledMatch

METHODS: dict[str, type] = {
    "held_out_loss": HeldOutLoss,
    "exact_match": ExactMatch,
    "sampled_match": SampledMatch,
    "domain_losses": DomainLosses,
}

__all__ = ["METHODS", "DomainLosses", "ExactMatch", "Exam", "HeldOutLoss", "SampledMatch", "Sitting"]
