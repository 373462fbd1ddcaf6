"""Leave one out: every answer is compared with the mean of the others to the same question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.advantages.group import answer_rewards, on_tokens, settled
from outlay.catalog import Paper
from outlay.sequences import group_index, judged_rows
from outlay.sources.base import Batch


@dataclass(frozen=True)
class LeaveOneOut:
    """A_i = R_i - mean_{j != i in the group} R_j = G / (G - 1) (R_i - mean(group)), R_i the answer's reward plus its tokens' shaping.

    The baseline does not depend on the answer itself, so that the gradient stays unbiased. An answer that is alone has baseline 0; ones that
    were not judged are nobody's neighbours.
    """

    title: ClassVar[str] = "Leave one out"
    paper: ClassVar[Paper | None] = Paper(
        "2402.14740", "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs", 2024
    )
    needs_greedy: ClassVar[bool] = False
    needs_values: ClassVar[bool] = False

    def advantages(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return (n, T - 1): the answer's advantage on each of its tokens."""
        rewards = answer_rewards(batch, mask, shaping)
        worth = rewards.double()
        index, groups = group_index(batch)
        judged = judged_rows(batch).double()
        members = judged.new_zeros(groups).index_add(0, index, judged)[index]
        total = judged.new_zeros(groups).index_add(0, index, worth * judged)[index]
        others = (total - worth) / (members - 1).clamp(min=1)
        found = torch.where(members > 1, settled(worth - others, worth), worth)
        return on_tokens(found.to(rewards.dtype), batch, mask)
