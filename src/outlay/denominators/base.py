"""The denominator of the policy-gradient estimator: what the likelihood of a token is divided by."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from outlay.sources.base import Batch


@runtime_checkable
class Denominator(Protocol):
    """Gives log pi_ref of the estimator (1 / pi_ref) A grad pi. ``needs_old`` asks for the column ``old``: the log probabilities under the
    weights that the trainer had when the batch was generated, computed by the trainer itself; that takes a forward pass."""

    @property
    def needs_old(self) -> bool:
        """Whether the column ``old`` is read."""
        ...

    def log_probs(self, current: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return log pi_ref (n, T - 1) without gradients; ``current`` is log pi of the labelled tokens."""
        ...

    def correction(self, batch: Batch) -> torch.Tensor | None:
        """Return weights (n, T - 1) that correct for tokens having been drawn from another distribution than pi_ref; None for none."""
        ...
