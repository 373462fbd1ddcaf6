"""A constant baseline, which off the policy is no matter of variance but of how much bad answers teach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.advantages.group import answer_rewards, on_tokens
from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.sources.base import Batch


@dataclass(frozen=True)
class Shifted:
    """A_i = R_i - baseline, R_i the answer's reward plus its tokens' shaping.

    For rewards of +1 and -1 of which a share p is +1, the baseline c makes the data look as if the share were
    p' = p (1 - c) / (1 + (1 - 2 p) c); ``baseline_for`` gives the c that does so. For rewards of 1 and 0 the baseline (1 + c) / 2 does the same.

    Args:
        baseline: c, in the units of the reward.
    """

    title: ClassVar[str] = "Over a constant"
    paper: ClassVar[Paper | None] = Paper(
        "2503.14286", "Tapered Off-Policy REINFORCE: Stable and efficient reinforcement learning for LLMs", 2025
    )
    needs_greedy: ClassVar[bool] = False
    needs_values: ClassVar[bool] = False

    baseline: float = 0.0

    def advantages(self, batch: Batch, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        """Return (n, T - 1): the answer's advantage on each of its tokens."""
        return on_tokens(answer_rewards(batch, mask, shaping) - self.baseline, batch, mask)


def effective_share(share: float, baseline: float) -> float:
    """Return the share of good answers p' that ``share`` of them, rewarded with +1 against -1, weighs like under the baseline."""
    require(0 <= share <= 1, f"share must lie in [0, 1], found {share}")
    require(-1 < baseline < 1, f"baseline must lie in (-1, 1), found {baseline}")
    return share * (1 - baseline) / (1 + (1 - 2 * share) * baseline)


def baseline_for(share: float, wanted: float) -> float:
    """Return the baseline under which a share of good answers weighs like ``wanted``: c = (p - p') / (p + p' - 2 p p')."""
    require(0 < share < 1, f"share must lie in (0, 1), found {share}")
    require(0 < wanted < 1, f"wanted must lie in (0, 1), found {wanted}")
    return (share - wanted) / (share + wanted - 2 * share * wanted)
