"""PPO's clip: a token that has moved far enough in the wanted direction stops moving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Clip:
    """min(r A, clip(r, 1 - low, 1 + high) A); with ``dual``, max(that, dual A) where A < 0.

    The gradient is that of r A, and 0 exactly where A > 0 and r > 1 + high, where A < 0 and r < 1 - low, and, with ``dual``, where A < 0 and
    r > dual, so that an answer that has become far likelier although it was bad does not tear everything along. ``high`` > ``low`` is DAPO's
    "clip higher" (2503.14476), which leaves rare tokens room to grow; ``dual`` is the dual clip of 1912.09729.

    Args:
        low: how far the ratio may fall, in [0, 1].
        high: how far it may rise, >= 0.
        dual: bound on the ratio of bad answers, > 1 + high; None for none.
    """

    title: ClassVar[str] = "PPO clip"
    paper: ClassVar[Paper | None] = Paper("1707.06347", "Proximal Policy Optimization Algorithms", 2017)

    low: float = 0.2
    high: float = 0.2
    dual: float | None = None

    def __post_init__(self) -> None:
        require(0 <= self.low <= 1, f"low must lie in [0, 1], found {self.low}")
        require(self.high >= 0, f"high must be >= 0, found {self.high}")
        require(self.dual is None or self.dual > 1 + self.high, f"dual must be > 1 + high, found {self.dual} and high {self.high}")

    def surrogate(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """Return the clipped objective of every token, (n, T - 1)."""
        found = torch.minimum(ratio * advantage, ratio.clamp(1 - self.low, 1 + self.high) * advantage)
        if self.dual is None:
            return found
        return torch.where(advantage < 0, torch.maximum(found, self.dual * advantage), found)

    def active(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """Return False where the gradient is cut, (n, T - 1)."""
        cut = (advantage > 0) & (ratio > 1 + self.high) | (advantage < 0) & (ratio < 1 - self.low)
        if self.dual is not None:
            cut = cut | (advantage < 0) & (ratio > self.dual)
        return ~cut
