"""ReMax: REINFORCE with the greedy answer's reward as baseline; no critic, no group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outlay.advantages import Greedy
from outlay.catalog import Paper
from outlay.denominators import Current
from outlay.objectives.named import Named, kl_anchor
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Unmasked


@dataclass(frozen=True)
class Remax(Named):
    """Token mean of A_t grad log pi(y_t), A_t = -kl * k1_t + discount^(T - t) clip(r - r_greedy, -reward_clip, reward_clip).

    A question needs one sampled answer and one greedy one. There is no ratio: each batch is good for one update.

    Args:
        kl: coefficient of the divergence from the model of the stage's start, on each token alone (k1), >= 0; knob ``kl``.
        discount: gamma, in (0, 1].
        reward_clip: bound of the difference of rewards, > 0.
    """

    title: ClassVar[str] = "ReMax"
    paper: ClassVar[Paper | None] = Paper(
        "2310.10505", "ReMax: A Simple, Effective, and Efficient Reinforcement Learning Method for Aligning Large Language Models", 2023
    )

    kl: float = 0.05
    discount: float = 0.99
    reward_clip: float = 5.0

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Greedy(self.reward_clip, self.discount),
            denominator=Current(),
            stabiliser=Unmasked(),
            aggregate="token_mean",
            anchors=kl_anchor(self.kl, "k1", in_reward=True),
        )
