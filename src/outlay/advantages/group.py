"""Group-relative advantages: rewards less a mean, over a deviation, each taken over the group, over the batch, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.sequences import group_index, judged_rows, row_sums
from outlay.sources.base import Batch

Scope = Literal["none", "batch", "group"]


@dataclass(frozen=True)
class Group:
    """A_it = (R_i - mean(R)) / (std(R) + epsilon) for every token t of answer i, where R_i is the answer's reward plus its tokens' shaping.

    ``mean`` and ``std`` say over which answers each is taken, so that the grid of arXiv 2508.08221 is one class: group and group are GRPO
    (2402.03300), group and none Dr. GRPO (2503.20783), group and batch Lite PPO, batch and none a global baseline, none and none the bare
    reward. The deviation is that of the rewards themselves, not of the centred ones. A group of one judged answer has mean 0 and deviation 1.
    Statistics are formed in double precision, so that equal rewards give advantages of exactly 0.

    Args:
        mean: what is subtracted: nothing, the batch's mean or the group's.
        std: what is divided by: nothing, the batch's deviation or the group's.
        unbiased: divide the squares by n - 1 rather than by n.
        epsilon: added to the deviation, >= 0; without it equal rewards still give 0.
    """

    title: ClassVar[str] = "Group-relative"
    paper: ClassVar[Paper | None] = Paper(
        "2402.03300", "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", 2024
    )
    needs_greedy: ClassVar[bool] = False
    needs_values: ClassVar[bool] = False

    mean: Scope = "group"
    std: Scope = "group"
    unbiased: bool = True
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        require(self.mean in ("none", "batch", "group"), f"mean must be none, batch or group, found {self.mean!r}")
        require(self.std in ("none", "batch", "group"), f"std must be none, batch or group, found {self.std!r}")
        require(self.epsilon >= 0, f"epsilon must be >= 0, found {self.epsilon}")

    def advantages(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return (n, T - 1): the answer's advantage on each of its tokens."""
        return on_tokens(self.of_rows(answer_rewards(batch, mask, shaping), batch), batch, mask)

    def of_rows(self, rewards: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the advantage of every answer (n,), given what each is worth (n,)."""
        index, groups = group_index(batch)
        judged = judged_rows(batch)
        worth = torch.where(judged, rewards, 0.0).double()
        everyone = torch.zeros_like(index)
        centre, spread = torch.zeros_like(worth), torch.ones_like(worth)
        if self.mean != "none":
            where, count = (index, groups) if self.mean == "group" else (everyone, 1)
            centre = _means(worth, judged, where, count, alone=0.0)[where]
        if self.std != "none":
            where, count = (index, groups) if self.std == "group" else (everyone, 1)
            spread = self._deviations(worth, judged, where, count)[where] + self.epsilon
        better = settled(worth - centre, worth) if self.mean != "none" else worth
        found = better / torch.where(spread > 0, spread, 1.0)
        return torch.where(judged, found, 0.0).to(rewards.dtype)

    def _deviations(self, worth: torch.Tensor, judged: torch.Tensor, where: torch.Tensor, count: int) -> torch.Tensor:
        members = worth.new_zeros(count).index_add(0, where, judged.double())
        centred = torch.where(judged, settled(worth - _means(worth, judged, where, count)[where], worth), 0.0)
        squares = worth.new_zeros(count).index_add(0, where, centred**2)
        found = (squares / (members - int(self.unbiased)).clamp(min=1)).sqrt()
        return torch.where(members > 1, found, 1.0)


def answer_rewards(batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
    """Return what each answer is worth, (n,): its reward and its tokens' shaping; 0 where it was not judged."""
    return torch.where(judged_rows(batch), batch["reward"] + row_sums(shaping, mask), 0.0)


def on_tokens(rows: torch.Tensor, batch: Batch, mask: torch.Tensor) -> torch.Tensor:
    """Return values of answers (n,) on each of their tokens, (n, T - 1); 0 elsewhere and where they were not judged."""
    return torch.where(mask & judged_rows(batch)[:, None], rows[:, None], 0.0)


def settled(differences: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """Return differences of values ``of`` in double precision, those that are rounding error alone set to 0."""
    return torch.where(differences.abs() > 1e-12 * of.abs().max(), differences, 0.0) if of.numel() else differences


def _means(worth: torch.Tensor, judged: torch.Tensor, where: torch.Tensor, count: int, alone: float | None = None) -> torch.Tensor:
    members = worth.new_zeros(count).index_add(0, where, judged.double())
    found = worth.new_zeros(count).index_add(0, where, worth) / members.clamp(min=1)
    return found if alone is None else torch.where(members > 1, found, alone)
