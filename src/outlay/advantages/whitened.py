"""Whitening: another advantage, brought to mean 0 and deviation 1 over all tokens of the batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from outlay.advantages.base import Advantage, Learns
from outlay.advantages.group import Group, settled
from outlay.advantages.to_go import teaching
from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.sources.base import Batch


def _centred() -> Advantage:
    return Group(mean="group", std="none")


@dataclass(frozen=True)
class Whitened:
    """A_t = (a_t - mean(a)) / sqrt(var(a) + epsilon), mean and variance over all tokens of the batch's judged answers: a long answer weighs more.

    Over a group-centred advantage this is the baseline variant of REINFORCE++ and that of DLER, over rewards to go REINFORCE++, over generalised
    advantages PPO. One deviation for the whole batch, rather than one a group, does not blow up groups whose rewards are nearly all the same.

    Args:
        of: the advantage a that is whitened.
        unbiased: divide the squares by tokens - 1 rather than by tokens.
        epsilon: added to the variance, >= 0.
    """

    title: ClassVar[str] = "Whitened over the batch"
    paper: ClassVar[Paper | None] = Paper("2510.15110", "DLER: Doing Length pEnalty Right", 2025)

    of: Advantage = field(default_factory=_centred)
    unbiased: bool = True
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        require(self.epsilon >= 0, f"epsilon must be >= 0, found {self.epsilon}")

    @property
    def needs_greedy(self) -> bool:
        """Whether the whitened advantage needs it."""
        return self.of.needs_greedy

    @property
    def needs_values(self) -> bool:
        """Whether the whitened advantage needs them."""
        return self.of.needs_values

    def advantages(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return the advantage of every token, (n, T - 1)."""
        raw = self.of.advantages(batch, mask, shaping)
        tokens = teaching(batch, mask)
        seen = raw[tokens].double()
        if seen.numel() == 0:
            return raw
        centred = settled(raw.double() - seen.mean(), seen)
        variance = centred[tokens].square().sum() / max(1, seen.numel() - int(self.unbiased))
        scale = (variance + self.epsilon).sqrt()
        return torch.where(tokens & (scale > 0), centred / scale.clamp(min=1e-300), 0.0).to(raw.dtype)

    def returns(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return what the critic should have said, which whitening does not touch, (n, T - 1).

        Raises:
            TypeError: when the whitened advantage knows no critic.
        """
        if not isinstance(self.of, Learns):
            raise TypeError(f"{type(self.of).__name__} has nothing for a critic to learn")
        return self.of.returns(batch, mask, shaping)
