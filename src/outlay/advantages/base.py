"""The advantage of the policy-gradient estimator: how much better than expected an answer was."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from outlay.sources.base import Batch


@runtime_checkable
class Advantage(Protocol):
    """Works out advantages from a whole batch of rollouts, before it is cut. ``needs_greedy`` asks for the column ``greedy_reward``;
    ``needs_values`` for the column ``values``, the critic's."""

    @property
    def needs_greedy(self) -> bool:
        """Whether the column ``greedy_reward`` is read."""
        ...

    @property
    def needs_values(self) -> bool:
        """Whether the column ``values`` is read."""
        ...

    def advantages(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return the advantage of every token, (n, T - 1), 0 where ``mask`` is False and for rows that were not judged. The latter enter no
        mean or deviation either.

        Args:
            batch: as ``outlay.objectives.sequences`` lays it out.
            mask: True on the answers' tokens, (n, T - 1).
            shaping: rewards of single tokens beside the answer's own, such as a KL penalty, (n, T - 1).
        """
        ...


@runtime_checkable
class Learns(Advantage, Protocol):
    """An advantage that a critic serves: it also says what the critic should have said."""

    def returns(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return the critic's targets, (n, T - 1), given what ``advantages`` is given."""
        ...
