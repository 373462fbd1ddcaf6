"""Anchors: terms beside the policy gradient that hold the policy near something or keep it exploring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from outlay.sources.base import Batch


@dataclass(frozen=True)
class Scored:
    """A batch as the model scores it now.

    Args:
        batch: the rollouts, prepared; ``reference`` (n, T) is there where an anchor asked for it.
        logits: at the answers' tokens, in row order, (tokens, vocabulary), at the temperature they were sampled at, with gradient.
        log_probs: of the answers' tokens, (n, T - 1), with gradient.
        mask: True on the answers' tokens, (n, T - 1).
        advantage: (n, T - 1).
    """

    batch: Batch
    logits: torch.Tensor
    log_probs: torch.Tensor
    mask: torch.Tensor
    advantage: torch.Tensor


@runtime_checkable
class Anchor(Protocol):
    """A penalty of every token, weighted by a knob. ``knobs`` names it with its default; ``needs_reference`` asks for the column ``reference``,
    log probabilities under the model as it was when the stage began. ``in_reward`` moves the penalty from the loss into the tokens' rewards;
    then it is worked out once, when the batch is prepared."""

    @property
    def needs_reference(self) -> bool:
        """Whether the column ``reference`` is read."""
        ...

    @property
    def in_reward(self) -> bool:
        """Whether the penalty goes into the rewards."""
        ...

    @property
    def knobs(self) -> Mapping[str, float]:
        """The coefficient's name and default."""
        ...

    def prepare(self, batch: Batch, mask: torch.Tensor) -> Batch:
        """Return the batch with what the penalty must know of the whole batch (a percentile); the batch itself where it need not."""
        ...

    def penalty(self, scored: Scored, knobs: Mapping[str, float]) -> torch.Tensor:
        """Return coefficient * penalty of every token, (n, T - 1), to be added to the loss (or subtracted from the rewards)."""
        ...

    def measures(self, scored: Scored) -> dict[str, torch.Tensor]:
        """Return what is worth recording, each of shape (n, T - 1), to be averaged over tokens."""
        ...
