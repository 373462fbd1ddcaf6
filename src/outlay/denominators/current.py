"""The current policy as denominator: the ratio is 1 and the gradient that of the log likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.sources.base import Batch


@dataclass(frozen=True)
class Current:
    """pi_ref = sg(pi): (1 / pi) grad pi = grad log pi, as in REINFORCE and supervised fine-tuning. Nothing is corrected for."""

    title: ClassVar[str] = "The current policy"
    paper: ClassVar[Paper | None] = Paper("2509.04419", "Towards a Unified View of Large Language Model Post-Training", 2025)
    needs_old: ClassVar[bool] = False

    def log_probs(self, current: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return log pi itself, without gradient, (n, T - 1)."""
        return current.detach()

    def correction(self, batch: Batch) -> torch.Tensor | None:
        """Return None."""
        return None
