"""The sampler's policy as denominator: the log probabilities that came with the rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.sequences import shifted
from outlay.sources.base import Batch


@dataclass(frozen=True)
class Behaviour:
    """pi_ref = mu, the policy that wrote the tokens, by the log probabilities it reported (column ``behaviour``).

    Whatever makes pi differ from mu enters the ratio: updates since, and a sampler that computes otherwise than the trainer. It costs no forward
    pass. ``Old`` keeps the two apart.
    """

    title: ClassVar[str] = "The sampler's policy"
    paper: ClassVar[Paper | None] = Paper("1707.06347", "Proximal Policy Optimization Algorithms", 2017)
    needs_old: ClassVar[bool] = False

    def log_probs(self, current: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return log mu, (n, T - 1)."""
        return shifted(batch, "behaviour").to(current.dtype)

    def correction(self, batch: Batch) -> torch.Tensor | None:
        """Return None: the ratio corrects already."""
        return None
