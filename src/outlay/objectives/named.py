"""What the named methods share: each describes a policy gradient by its own hyper-parameters and is that estimator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import nn

from outlay.anchors import Anchor, Kl
from outlay.anchors.kl import Estimator
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.sequences import Frozen
from outlay.sources.base import Batch


class Named(ABC):
    """An objective that is a setting of the policy gradient. A method says which in ``estimator``; everything else is done by it."""

    def __post_init__(self) -> None:
        _ = self._estimator  # making the parts refuses hyper-parameters that are out of range

    @abstractmethod
    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""

    @cached_property
    def _estimator(self) -> PolicyGradient:
        return self.estimator()

    @property
    def needs_greedy(self) -> bool:
        """Whether rollouts must come with the reward of the likeliest answer."""
        return self._estimator.needs_greedy

    @property
    def knobs(self) -> Mapping[str, float]:
        """The coefficients that the loss reads."""
        return self._estimator.knobs

    @property
    def passes(self) -> float:
        """Forward passes over a batch that preparing takes."""
        return self._estimator.passes

    def bind(self, frozen: Frozen) -> PolicyGradient:
        """Return the estimator, comparing with ``frozen()`` where an anchor asks for it."""
        return self._estimator.bind(frozen)

    def weight(self, batch: Batch) -> float:
        """Return the number of judged tokens or answers."""
        return self._estimator.weight(batch)

    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the batch with the columns that the loss reads."""
        return self._estimator.prepare(model, batch, knobs)

    def thin(self, batch: Batch) -> Batch:
        """Return the batch of an update without answers that have no part in the gradient."""
        return self._estimator.thin(batch)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return loss and measures."""
        return self._estimator(model, batch, knobs)


def kl_anchor(coefficient: float, estimator: Estimator = "k3", in_reward: bool = False) -> tuple[Anchor, ...]:
    """Return the divergence from the reference as a method's anchor; none for a coefficient of 0, which spares the frozen model."""
    return (Kl(coefficient, estimator, in_reward),) if coefficient else ()
