"""GRPO: PPO's clip with advantages relative to the answers to the same question, instead of a critic."""

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
class Grpo(Named):
    """A_i = (r_i - mean(group)) / std(group); mean over answers of their tokens' mean of min(r A, clip(r) A) - kl * k3.

    The deviation is the unbiased one, as in the implementations of TRL and verl; the paper does not say. The clip range is PPO's; the paper
    names none.

    Args:
        clip: how far the ratio may move from 1 before the gradient is cut, in [0, 1].
        kl: coefficient of the divergence from the model of the stage's start, in the loss (k3), >= 0; knob ``kl``. 0 takes it and the frozen model away.
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "Group relative policy optimisation (GRPO)"
    paper: ClassVar[Paper | None] = Paper(
        "2402.03300", "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", 2024
    )

    clip: float = 0.2
    kl: float = 0.04
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Group(mean="group", std="group"),
            denominator=self.denominator,
            stabiliser=Clip(self.clip, self.clip),
            aggregate="sequence_mean",
            anchors=kl_anchor(self.kl),
        )
