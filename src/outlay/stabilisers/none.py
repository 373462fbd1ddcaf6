"""No mask: every token moves as the ratio says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper


@dataclass(frozen=True)
class Unmasked:
    """What is maximised is r A; every token's gradient passes."""

    title: ClassVar[str] = "None"
    paper: ClassVar[Paper | None] = Paper("2509.04419", "Towards a Unified View of Large Language Model Post-Training", 2025)

    def surrogate(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """Return r A, (n, T - 1)."""
        return ratio * advantage

    def active(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """Return True everywhere."""
        return torch.ones_like(ratio, dtype=torch.bool)
