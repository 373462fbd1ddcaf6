"""The likelihood of single tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.sequences import bounded


@dataclass(frozen=True)
class Token:
    """r_t = pi(y_t) / pi_ref(y_t), every token for itself, as in PPO. The log ratio's value is kept within 20 of 0; its gradient is not touched."""

    title: ClassVar[str] = "Of every token"
    paper: ClassVar[Paper | None] = Paper("1707.06347", "Proximal Policy Optimization Algorithms", 2017)

    def ratio(self, current: torch.Tensor, denominator: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return r_t, (n, T - 1); 1 outside the answer."""
        return bounded((current - denominator) * mask).exp()
