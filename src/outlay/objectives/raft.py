"""RAFT and RAFT++: learning from the good answers alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from outlay.advantages import BestOnly, PositiveOnly
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Current, Denominator
from outlay.objectives.named import Named
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Clip, Unmasked


@dataclass(frozen=True)
class Raft(Named):
    """Supervised fine-tuning on each question's best answer: the token mean of -log pi over the answers that are kept. The others leave the batch.

    Args:
        above: what the best answer must be worth more than to be kept; None, the paper's, keeps it whatever it is worth. Take 0 for rewards of 1 and 0.
    """

    title: ClassVar[str] = "Reward-ranked fine-tuning (RAFT)"
    paper: ClassVar[Paper | None] = Paper("2304.06767", "RAFT: Reward rAnked FineTuning for Generative Foundation Model Alignment", 2023)

    above: float | None = None

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=BestOnly(self.above), denominator=Current(), stabiliser=Unmasked(), aggregate="token_mean", silent="drop"
        )


@dataclass(frozen=True)
class RaftPlusPlus(Named):
    """A_i = 1 for answers that are worth more than ``above``; token mean of min(r A, clip(r) A) over them. The others leave the batch.

    RAFT on every good answer, with the ratio and PPO's clip that let a batch be used for several updates.

    Args:
        above: the threshold.
        low: how far the ratio may fall, in [0, 1].
        high: how far it may rise, >= 0.
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "RAFT with ratio and clip (RAFT++)"
    paper: ClassVar[Paper | None] = Paper(
        "2504.11343", "A Minimalist Approach to LLM Reasoning: from Rejection Sampling to Reinforce", 2025
    )

    above: float = 0.0
    low: float = 0.2
    high: float = 0.2
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=PositiveOnly(self.above),
            denominator=self.denominator,
            stabiliser=Clip(self.low, self.high),
            aggregate="token_mean",
            silent="drop",
        )
