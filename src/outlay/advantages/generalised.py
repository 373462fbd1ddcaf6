"""Generalised advantage estimation: a critic's opinion and what then came, mixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.advantages.to_go import discounted, teaching, token_rewards
from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.sequences import shifted
from outlay.sources.base import Batch


@dataclass(frozen=True)
class Generalised:
    """A_t = sum_{s >= t} (discount trace)^(s - t) delta_s, delta_s = rho_s + discount V_{s + 1} - V_s, with V = 0 after the last token.

    rho are the tokens' rewards (shaping, and on the last token the answer's own), V the critic's values (column ``values``) of what lies before
    a token. The critic learns A_t + V_t. trace = 1 is rewards to go less the value, trace = 0 the single step. An answer that was cut at its limit
    counts as ended.

    Args:
        discount: gamma, in (0, 1].
        trace: lambda, in [0, 1].
    """

    title: ClassVar[str] = "Generalised advantage estimation"
    paper: ClassVar[Paper | None] = Paper("1506.02438", "High-Dimensional Continuous Control Using Generalized Advantage Estimation", 2015)
    needs_greedy: ClassVar[bool] = False
    needs_values: ClassVar[bool] = True

    discount: float = 1.0
    trace: float = 0.95

    def __post_init__(self) -> None:
        require(0 < self.discount <= 1, f"discount must lie in (0, 1], found {self.discount}")
        require(0 <= self.trace <= 1, f"trace must lie in [0, 1], found {self.trace}")

    def advantages(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return the advantage of every token, (n, T - 1)."""
        rewards = token_rewards(batch, mask, shaping)
        own = teaching(batch, mask)
        values = torch.where(own, shifted(batch, "values").to(rewards.dtype), 0.0)
        return discounted(rewards + self.discount * _following(values, own) - values, own, self.discount * self.trace)

    def returns(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return what the critic should have said of every token, (n, T - 1)."""
        found = self.advantages(batch, mask, shaping)
        return torch.where(mask, found + shifted(batch, "values").to(found.dtype), 0.0)


def _following(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the value at the answer's next token (n, T), 0 after its last."""
    found, running = torch.zeros_like(values), values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        found[:, t] = running
        running = torch.where(mask[:, t], values[:, t], running)
    return found
