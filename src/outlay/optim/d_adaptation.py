"""D-Adaptation: Adam that estimates its own learning rate, by pytorch_optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.optim.base import decay_groups, maintained
from outlay.optim.sharded import unsharded


@dataclass(frozen=True)
class DAdaptation:
    """Adam with the learning rate lr d, d a lower bound of the distance to the solution that only grows; pytorch_optimizer's DAdaptAdam.

    Each step, with beta3 = sqrt(beta2):

        r <- beta3 r + (1 - beta3) lr d <g, s / (sqrt(v) + eps)>,  s <- beta3 s + (1 - beta3) lr d g
        m <- beta1 m + (1 - beta1) lr d g,  v <- beta2 v + (1 - beta2) g^2
        w <- w (1 - lr d weight_decay) - m / (sqrt(v) + eps),  d <- max(d, r / ((1 - beta3) |s|_1))

    The knob ``lr`` stands at 1 and carries the schedule's shape alone; vectors do not decay.

    Args:
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        first: first estimate of the distance, > 0.
        growth: most that d may be multiplied by in a step, > 1.
    """

    title: ClassVar[str] = "D-Adaptation of Adam"
    paper: ClassVar[Paper | None] = Paper("2301.07733", "Learning-Rate-Free Learning by D-Adaptation", 2023)
    coupled: ClassVar[bool] = True
    knobs: ClassVar[dict[str, float]] = {"lr": 1.0, "weight_decay": 0.0}

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    first: float = 1e-6
    growth: float = math.inf

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"beta1 and beta2 must lie in [0, 1), found {self.beta1} and {self.beta2}")
        if self.eps <= 0 or self.first <= 0 or not self.growth > 1:
            raise ValueError(f"eps and first must be > 0 and growth > 1, found {self.eps}, {self.first} and {self.growth}")
        maintained()

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return pytorch_optimizer's DAdaptAdam over the parameters.

        Raises:
            InputError: for parameters that are sharded.
        """
        parameters = unsharded(parameters, "D-Adaptation", "the distance that it estimates is a sum over all weights")
        optimizer: torch.optim.Optimizer = maintained().DAdaptAdam(
            decay_groups(parameters), lr=self.knobs["lr"], betas=(self.beta1, self.beta2), eps=self.eps, d0=self.first,
            growth_rate=self.growth, weight_decay=self.knobs["weight_decay"], weight_decouple=True,
        )  # fmt: skip
        return optimizer

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """Two moments and the sum s: three times the parameters."""
        return sum(3 * math.prod(shape) * element_size for shape in shapes.values())
