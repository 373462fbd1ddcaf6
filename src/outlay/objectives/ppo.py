"""PPO: a clipped policy gradient with a critic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from outlay.advantages import Generalised, Whitened
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.objectives.actor_critic import ActorCritic
from outlay.objectives.named import Named, kl_anchor
from outlay.stabilisers import Clip


@dataclass(frozen=True)
class Ppo(Named):
    """Token mean of min(r_t A_t, clip(r_t) A_t), A whitened generalised advantages of a critic that learns beside the policy.

    Rewards of tokens are -kl * k1_t, and on the last one the answer's as well (1909.08593). The critic is a linear head on the model's last hidden state.

    Args:
        clip: how far the ratio may move from 1 before the gradient is cut, in [0, 1].
        discount: gamma, in (0, 1].
        trace: lambda of the generalised advantages, in [0, 1].
        kl: coefficient of the divergence from the model of the stage's start, taken from every token's reward (k1), >= 0; knob ``kl``.
        critic: weight of the value loss, >= 0; knob ``critic``.
        value_clip: how far a value may move before its gradient is cut, > 0; None for no limit.
        shared: whether the value loss also trains the model under the head.
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "Proximal policy optimisation (PPO)"
    paper: ClassVar[Paper | None] = Paper("1707.06347", "Proximal Policy Optimization Algorithms", 2017)

    clip: float = 0.2
    discount: float = 1.0
    trace: float = 0.95
    kl: float = 0.05
    critic: float = 0.1
    value_clip: float | None = 0.2
    shared: bool = True
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> ActorCritic:
        """Return the policy gradient that this method is."""
        return ActorCritic(
            advantage=Whitened(Generalised(self.discount, self.trace)),
            denominator=self.denominator,
            stabiliser=Clip(self.clip, self.clip),
            aggregate="token_mean",
            anchors=kl_anchor(self.kl, "k1", in_reward=True),
            critic=self.critic,
            value_clip=self.value_clip,
            shared=self.shared,
        )

    def attach(self, model: nn.Module, seed: int) -> nn.Module:
        """Return the critic's value head."""
        return self.estimator().attach(model, seed)
