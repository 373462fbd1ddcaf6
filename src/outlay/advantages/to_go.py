"""Rewards to go: what comes after a token, without a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.sequences import judged_rows
from outlay.sources.base import Batch


@dataclass(frozen=True)
class ToGo:
    """A_t = sum_{s >= t} discount^(s - t) rho_s, rho the tokens' rewards: the shaping, and on the last token the answer's own as well.

    Args:
        discount: gamma, in (0, 1].
    """

    title: ClassVar[str] = "Rewards to go"
    paper: ClassVar[Paper | None] = Paper(
        "2501.03262", "REINFORCE++: An Efficient RLHF Algorithm with Robustness to Both Prompt and Reward Models", 2025
    )
    needs_greedy: ClassVar[bool] = False
    needs_values: ClassVar[bool] = False

    discount: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.discount <= 1, f"discount must lie in (0, 1], found {self.discount}")

    def advantages(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return the sums, (n, T - 1)."""
        return discounted(token_rewards(batch, mask, shaping), teaching(batch, mask), self.discount)


def teaching(batch: Batch, mask: torch.Tensor) -> torch.Tensor:
    """Return (n, T - 1): True on tokens of judged answers."""
    return mask & judged_rows(batch)[:, None]


def token_rewards(batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
    """Return every token's reward (n, T - 1): its shaping, and on an answer's last token the answer's reward too; 0 where not judged."""
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    return torch.where(teaching(batch, mask), shaping + torch.where(last, batch["reward"][:, None], 0.0), 0.0)


def discounted(values: torch.Tensor, mask: torch.Tensor, factor: float) -> torch.Tensor:
    """Return sum_{s >= t} factor^(tokens between) values_s for every t (n, T), over the positions where ``mask`` is True; 0 elsewhere."""
    found, running = torch.zeros_like(values), values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        # positions outside the answer are passed over, so that an answer may have gaps
        running = torch.where(mask[:, t], values[:, t] + factor * running, running)
        found[:, t] = running
    return torch.where(mask, found, 0.0)
