"""A bonus on the policy's entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.anchors.base import Scored
from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.sequences import entropies, knob, on_answers
from outlay.sources.base import Batch


@dataclass(frozen=True)
class Entropy:
    """-coefficient * H_t, H_t = -sum_v pi(v) log pi(v) over the vocabulary, on every token; knob ``entropy``. The estimator measures it as ``entropy``.

    Args:
        coefficient: default of the knob, >= 0.
    """

    title: ClassVar[str] = "Entropy bonus"
    paper: ClassVar[Paper | None] = Paper("1602.01783", "Asynchronous Methods for Deep Reinforcement Learning", 2016)
    needs_reference: ClassVar[bool] = False
    in_reward: ClassVar[bool] = False

    coefficient: float = 0.001

    def __post_init__(self) -> None:
        require(self.coefficient >= 0, f"coefficient must be >= 0, found {self.coefficient}")

    @property
    def knobs(self) -> Mapping[str, float]:
        """``entropy`` and its default."""
        return {"entropy": self.coefficient}

    def prepare(self, batch: Batch, mask: torch.Tensor) -> Batch:
        """Return the batch itself."""
        return batch

    def penalty(self, scored: Scored, knobs: Mapping[str, float]) -> torch.Tensor:
        """Return -coefficient * H_t, (n, T - 1)."""
        return -knob(knobs, "entropy", self.coefficient) * on_answers(entropies(scored.logits), scored.mask)

    def measures(self, scored: Scored) -> dict[str, torch.Tensor]:
        """Return nothing: the entropy is measured anyhow."""
        return {}
