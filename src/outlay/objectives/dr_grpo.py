"""Dr. GRPO: GRPO without its two biases, the deviation of the group and the division by the answer's length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from outlay.advantages import Group
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.objectives.named import Named, kl_anchor
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Clip


@dataclass(frozen=True)
class DrGrpo(Named):
    """A_i = r_i - mean(group); mean over answers of the sum over their tokens of min(r A, clip(r) A), divided by a constant length.

    On the first step this is the policy gradient with a group baseline, in the scale of one token.

    Args:
        clip: how far the ratio may move from 1 before the gradient is cut, in [0, 1].
        length: the constant, in tokens, > 0; None for the row's token limit.
        kl: coefficient of the divergence from the model of the stage's start, in the loss (k3), >= 0; knob ``kl``.
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "GRPO done right (Dr. GRPO)"
    paper: ClassVar[Paper | None] = Paper("2503.20783", "Understanding R1-Zero-Like Training: A Critical Perspective", 2025)

    clip: float = 0.2
    length: int | None = None
    kl: float = 0.0
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Group(mean="group", std="none"),
            denominator=self.denominator,
            stabiliser=Clip(self.clip, self.clip),
            aggregate="constant",
            length=self.length,
            anchors=kl_anchor(self.kl),
        )
