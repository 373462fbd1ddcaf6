"""REINFORCE++: rewards to go, whitened over the whole batch, under PPO's clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from outlay.advantages import ToGo, Whitened
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.objectives.named import Named, kl_anchor
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Clip


@dataclass(frozen=True)
class ReinforcePlusPlus(Named):
    """A_t = whiten(r - kl * sum_{s >= t} k1_s), mean and deviation over all tokens of the batch; token mean of min(r_t A, clip(r_t) A).

    Normalising over the batch rather than over each question's few answers is what the paper puts in the place of both critic and group.

    Args:
        clip: how far the ratio may move from 1 before the gradient is cut, in [0, 1].
        kl: coefficient of the divergence from the model of the stage's start, taken from every token's reward (k1), >= 0; knob ``kl``.
        discount: gamma, in (0, 1].
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "REINFORCE++"
    paper: ClassVar[Paper | None] = Paper(
        "2501.03262", "REINFORCE++: An Efficient RLHF Algorithm with Robustness to Both Prompt and Reward Models", 2025
    )

    clip: float = 0.2
    kl: float = 0.01
    discount: float = 1.0
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Whitened(ToGo(self.discount)),
            denominator=self.denominator,
            stabiliser=Clip(self.clip, self.clip),
            aggregate="token_mean",
            anchors=kl_anchor(self.kl, "k1", in_reward=True),
        )
