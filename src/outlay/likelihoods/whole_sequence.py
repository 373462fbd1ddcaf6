"""The likelihood of whole answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.sequences import bounded, row_sums


@dataclass(frozen=True)
class WholeSequence:
    """r = pi(y) / pi_ref(y) = prod_t pi(y_t) / pi_ref(y_t), the exact importance weight, on every token of the answer and with its gradient on each.

    It belongs with ``sequence_mean``: the mean over an answer's tokens is then r itself, and its gradient r sum_t grad log pi(y_t) times the
    answer's mean advantage. The log ratio's value is kept within 20 of 0; its gradient is not touched.
    """

    title: ClassVar[str] = "Of the answer"
    paper: ClassVar[Paper | None] = Paper(
        "2503.14286", "Tapered Off-Policy REINFORCE: Stable and efficient reinforcement learning for LLMs", 2025
    )

    def ratio(self, current: torch.Tensor, denominator: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return r, (n, T - 1), the same in a row."""
        return bounded(row_sums(current - denominator, mask)).exp()[:, None].expand(mask.shape)
