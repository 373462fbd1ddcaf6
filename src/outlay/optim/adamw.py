"""AdamW: adaptive moments with decoupled weight decay, by torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.optim.base import decay_groups


@dataclass(frozen=True)
class AdamW:
    """w <- w - lr (m_hat / (sqrt(v_hat) + eps) + weight_decay w), torch's implementation. Vectors do not decay.

    The learning rate and the weight decay are the knobs ``lr`` and ``weight_decay``.

    Args:
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        fused: torch's fused kernel.
    """

    title: ClassVar[str] = "AdamW"
    paper: ClassVar[Paper | None] = Paper("1711.05101", "Decoupled Weight Decay Regularization", 2017)
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-3, "weight_decay": 0.0}

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    fused: bool = True

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"beta1 and beta2 must lie in [0, 1), found {self.beta1} and {self.beta2}")
        if self.eps <= 0:
            raise ValueError(f"eps must be > 0, found {self.eps}")

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return torch's AdamW over the parameters."""
        return torch.optim.AdamW(decay_groups(parameters), betas=(self.beta1, self.beta2), eps=self.eps, weight_decay=0.0, fused=self.fused)

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """Two moments an element, and a step count of 4 bytes a tensor."""
        return sum(2 * math.prod(shape) * element_size + 4 for shape in shapes.values())
