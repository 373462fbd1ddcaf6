"""The likelihood of whole answers, normalised by their length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.sequences import bounded, row_means


@dataclass(frozen=True)
class Sequence:
    """s = (pi(y) / pi_ref(y))^(1 / |y|) on every token of the answer, as in GSPO: one outlier token no longer decides alone.

    The gradient is each token's own: r_t = sg(s) pi(y_t) / sg(pi(y_t)). Summed over an answer whose tokens share their advantage that is |y| times
    the gradient of s, and tokens may have advantages of their own.
    """

    title: ClassVar[str] = "Of the answer, normalised by length"
    paper: ClassVar[Paper | None] = Paper("2507.18071", "Group Sequence Policy Optimization", 2025)

    def ratio(self, current: torch.Tensor, denominator: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return r_t, (n, T - 1); of value s everywhere in a row."""
        together = row_means((current - denominator).detach(), mask)[:, None]
        return bounded(together + (current - current.detach()) * mask).exp()
