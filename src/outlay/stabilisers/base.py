"""The stabilisation mask of the policy-gradient estimator: which tokens may still move, and how far."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class Stabiliser(Protocol):
    """Turns ratio and advantage into what is maximised."""

    def surrogate(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """Return the objective of every token, (n, T - 1); its gradient is that of ratio * advantage, masked or weighted."""
        ...

    def active(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """Return True for tokens whose gradient passes, (n, T - 1)."""
        ...
