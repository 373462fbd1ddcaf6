"""ReMax's advantage: better than the likeliest answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.advantages.to_go import teaching
from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.sources.base import Batch


@dataclass(frozen=True)
class Greedy:
    """A_t = shaping_t + discount^(T - t) clip(r - r_greedy, -clip, clip), t = 1 ... T along the answer.

    r_greedy is the reward of the question's likeliest answer (column ``greedy_reward``, one greedy rollout a question): a baseline that does not
    depend on the sample, hence no bias, and needs no critic. Of the shaping only a token's own enters, not what comes after.

    Args:
        clip: bound of the difference, > 0.
        discount: gamma, in (0, 1].
    """

    title: ClassVar[str] = "Over the greedy answer"
    paper: ClassVar[Paper | None] = Paper(
        "2310.10505", "ReMax: A Simple, Effective, and Efficient Reinforcement Learning Method for Aligning Large Language Models", 2023
    )
    needs_greedy: ClassVar[bool] = True
    needs_values: ClassVar[bool] = False

    clip: float = 5.0
    discount: float = 0.99

    def __post_init__(self) -> None:
        require(self.clip > 0, f"clip must be > 0, found {self.clip}")
        require(0 < self.discount <= 1, f"discount must lie in (0, 1], found {self.discount}")

    def advantages(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return the advantage of every token, (n, T - 1)."""
        better = (batch["reward"] - batch["greedy_reward"]).clamp(-self.clip, self.clip)
        after = mask.flip(1).cumsum(1).flip(1) - 1  # T - t
        found = shaping + better[:, None] * self.discount ** after.clamp(min=0).to(better.dtype)
        return torch.where(teaching(batch, mask), found, 0.0)
