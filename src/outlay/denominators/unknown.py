"""No denominator: data whose writer's probabilities are unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.sources.base import Batch


@dataclass(frozen=True)
class Unknown:
    """pi_ref = 1: the gradient is that of the probability itself, pi grad log pi. For data of unknown origin, as demonstrations used off policy."""

    title: ClassVar[str] = "No denominator"
    paper: ClassVar[Paper | None] = Paper("2509.04419", "Towards a Unified View of Large Language Model Post-Training", 2025)
    needs_old: ClassVar[bool] = False

    def log_probs(self, current: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return zeros, (n, T - 1)."""
        return torch.zeros_like(current)

    def correction(self, batch: Batch) -> torch.Tensor | None:
        """Return None."""
        return None
