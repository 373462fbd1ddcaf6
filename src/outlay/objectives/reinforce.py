"""REINFORCE: the log likelihood of answers, weighted by what they are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from outlay.advantages import Group
from outlay.catalog import Paper
from outlay.denominators import Current
from outlay.objectives.named import Named, kl_anchor
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Unmasked


@dataclass(frozen=True)
class Reinforce(Named):
    """Mean over answers of (r_i - b) sum_t grad log pi(y_t): the plain policy gradient. It knows no ratio, so each batch is good for one update.

    Args:
        baseline: b: nothing, the batch's mean reward, or the mean over the answers to the same question.
        kl: coefficient of the divergence from the model of the stage's start, taken from the answer's reward (k1), >= 0; knob ``kl``.
    """

    title: ClassVar[str] = "REINFORCE"
    paper: ClassVar[Paper | None] = Paper(
        "", "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", 1992
    )

    baseline: Literal["none", "batch", "group"] = "batch"
    kl: float = 0.0

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Group(mean=self.baseline, std="none"),
            denominator=Current(),
            stabiliser=Unmasked(),
            aggregate="sequence_sum",
            anchors=kl_anchor(self.kl, "k1", in_reward=True),
        )
