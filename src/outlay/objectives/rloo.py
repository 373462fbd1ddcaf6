"""RLOO: the policy gradient of whole answers, each compared with the others to the same question."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from outlay.advantages import LeaveOneOut
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.likelihoods import WholeSequence
from outlay.objectives.named import Named, kl_anchor
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Clip


@dataclass(frozen=True)
class Rloo(Named):
    """A_i = R_i - mean of the others' R, R_i = r_i - kl * sum_t k1_t; mean over answers of min(r A, clip(r) A), r = pi(y) / pi_ref(y) of the whole answer.

    On the first step of a batch that is the paper's REINFORCE with the leave-one-out baseline; the clip lets a batch be used again, as in TRL.

    Args:
        clip: how far the answer's ratio may move from 1 before the gradient is cut, in [0, 1].
        kl: coefficient of the divergence from the model of the stage's start, taken from the answer's reward (k1), >= 0; knob ``kl``.
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "REINFORCE leave one out (RLOO)"
    paper: ClassVar[Paper | None] = Paper(
        "2402.14740", "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs", 2024
    )

    clip: float = 0.2
    kl: float = 0.05
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=LeaveOneOut(),
            denominator=self.denominator,
            likelihood=WholeSequence(),
            stabiliser=Clip(self.clip, self.clip),
            aggregate="sequence_mean",
            anchors=kl_anchor(self.kl, "k1", in_reward=True),
        )
