"""Rejection sampling as an advantage: good answers teach, the others do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.advantages.group import answer_rewards, on_tokens
from outlay.catalog import Paper
from outlay.sequences import group_index, judged_rows
from outlay.sources.base import Batch


@dataclass(frozen=True)
class BestOnly:
    """A_i = 1 for the group's best judged answer, the first among equals, and 0 for the others.

    Args:
        above: what the best must be worth more than to teach at all; None for nothing.
    """

    title: ClassVar[str] = "The best answer alone"
    paper: ClassVar[Paper | None] = Paper("2304.06767", "RAFT: Reward rAnked FineTuning for Generative Foundation Model Alignment", 2023)
    needs_greedy: ClassVar[bool] = False
    needs_values: ClassVar[bool] = False

    above: float | None = None

    def advantages(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return (n, T - 1): 1 on the tokens of the best answers, 0 elsewhere."""
        judged = judged_rows(batch)
        worth = torch.where(judged, answer_rewards(batch, mask, shaping), -torch.inf)
        index, groups = group_index(batch)
        best = worth.new_full((groups,), -torch.inf).scatter_reduce(0, index, worth, "amax")
        rows = torch.arange(len(index), device=index.device)
        standing = torch.where(judged & (worth == best[index]), rows, len(index))
        first = standing.new_full((groups,), len(index)).scatter_reduce(0, index, standing, "amin")
        chosen = rows == first[index]
        if self.above is not None:
            chosen = chosen & (worth > self.above)
        return on_tokens(chosen.to(worth.dtype), batch, mask)


@dataclass(frozen=True)
class PositiveOnly:
    """A_i = 1 for every answer that is worth more than a threshold, 0 for the others.

    Args:
        above: the threshold.
    """

    title: ClassVar[str] = "Good answers alone"
    paper: ClassVar[Paper | None] = Paper(
        "2504.11343", "A Minimalist Approach to LLM Reasoning: from Rejection Sampling to Reinforce", 2025
    )
    needs_greedy: ClassVar[bool] = False
    needs_values: ClassVar[bool] = False

    above: float = 0.0

    def advantages(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return (n, T - 1): 1 on the tokens of good answers, 0 elsewhere."""
        worth = answer_rewards(batch, mask, shaping)
        return on_tokens((worth > self.above).to(worth.dtype), batch, mask)
