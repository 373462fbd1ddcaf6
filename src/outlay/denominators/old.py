"""The trainer's own policy at generation time as denominator, corrected for the sampler's having computed otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.sequences import answer_mask, bounded, row_sums, shifted
from outlay.sources.base import Batch


@dataclass(frozen=True)
class Old:
    """pi_ref = pi_old, recomputed by the trainer when the batch is prepared, times a correction w for the sampler's mu (one forward pass).

    The weights of pi_old and mu are the same, or, in asynchronous generation, nearly so; but an engine of another precision gives other
    probabilities. With d = log pi_old - log mu of a token, or its sum over the answer,

        truncate: w = min(exp(d), cap)
        mask:     w = exp(d) where floor <= exp(d) <= cap, else 0

    so that stale or mismatched tokens are weighted here and nowhere else, while the stabiliser sees only pi / pi_old. A batch without
    ``behaviour`` is not corrected.

    Args:
        correction_by: ``truncate``, ``mask``, or ``none``.
        level: whether d is a token's or the whole answer's.
        cap: largest weight, > 0.
        floor: smallest weight that ``mask`` keeps, in [0, cap].
    """

    title: ClassVar[str] = "The trainer's policy at generation time"
    paper: ClassVar[Paper | None] = Paper("1707.06347", "Proximal Policy Optimization Algorithms", 2017)
    needs_old: ClassVar[bool] = True

    correction_by: Literal["truncate", "mask", "none"] = "truncate"
    level: Literal["token", "sequence"] = "token"
    cap: float = 2.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.correction_by in ("truncate", "mask", "none"),
            f"correction_by must be truncate, mask or none, found {self.correction_by!r}",
        )
        require(self.level in ("token", "sequence"), f"level must be token or sequence, found {self.level!r}")
        require(self.cap > 0, f"cap must be > 0, found {self.cap}")
        require(0 <= self.floor <= self.cap, f"floor must lie in [0, cap], found {self.floor} and cap {self.cap}")

    def log_probs(self, current: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return log pi_old, (n, T - 1)."""
        return shifted(batch, "old").to(current.dtype)

    def correction(self, batch: Batch) -> torch.Tensor | None:
        """Return w, (n, T - 1), or None where there is nothing to compare with."""
        if self.correction_by == "none" or "behaviour" not in batch:
            return None
        mask = answer_mask(batch)
        apart = (shifted(batch, "old") - shifted(batch, "behaviour")) * mask
        if self.level == "sequence":
            apart = row_sums(apart, mask)[:, None].expand(mask.shape)
        ratio = bounded(apart).exp()
        if self.correction_by == "truncate":
            return ratio.clamp(max=self.cap)
        return torch.where((ratio >= self.floor) & (ratio <= self.cap), ratio, 0.0)
