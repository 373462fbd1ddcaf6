"""Prodigy: Adam that estimates its own learning rate, by pytorch_optimizer."""

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
class Prodigy:
    """Adam with the learning rate lr d, d an estimate of the distance from the first weights to the solution; pytorch_optimizer's.

    Each step, with beta3 = sqrt(beta2):

        r <- beta3 r + (lr d^2 / d0) <g, w0 - w>,  s <- beta3 s + (lr d^2 / d0) g,  d <- max(d, coefficient r / |s|_1)
        m <- beta1 m + (1 - beta1) d g,  v <- beta2 v + (1 - beta2) d^2 g^2
        w <- w - lr d (m / (sqrt(v) + d eps) + weight_decay w)

    The knob ``lr`` stands at 1 and carries the schedule's shape alone; vectors do not decay. A horizon, the shape of a schedule, the betas and the
    decay are still to be chosen (arXiv 2505.24005).

    Args:
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        first: d0, first estimate of the distance, > 0.
        coefficient: multiplies the estimate, > 0.
        bias_correction: divide the step by Adam's bias corrections.
        safeguard_warmup: leave lr out of s, so that a warm-up does not inflate d.
    """

    title: ClassVar[str] = "Prodigy"
    paper: ClassVar[Paper | None] = Paper("2306.06101", "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", 2023)
    coupled: ClassVar[bool] = True
    knobs: ClassVar[dict[str, float]] = {"lr": 1.0, "weight_decay": 0.0}

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    first: float = 1e-6
    coefficient: float = 1.0
    bias_correction: bool = False
    safeguard_warmup: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"beta1 and beta2 must lie in [0, 1), found {self.beta1} and {self.beta2}")
        if self.eps <= 0 or self.first <= 0 or self.coefficient <= 0:
            raise ValueError(f"eps, first and coefficient must be > 0, found {self.eps}, {self.first} and {self.coefficient}")
        maintained()

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return pytorch_optimizer's Prodigy over the parameters.

        Raises:
            InputError: for parameters that are sharded.
        """
        parameters = unsharded(parameters, "Prodigy", "the distance that it estimates is a sum over all weights")
        optimizer: torch.optim.Optimizer = maintained().Prodigy(
            decay_groups(parameters), lr=self.knobs["lr"], betas=(self.beta1, self.beta2), eps=self.eps, d0=self.first,
            d_coef=self.coefficient, weight_decay=self.knobs["weight_decay"], bias_correction=self.bias_correction,
            safeguard_warmup=self.safeguard_warmup,
        )  # fmt: skip
        return optimizer

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """Two moments, the sum s and the first weights: four times the parameters."""
        return sum(4 * math.prod(shape) * element_size for shape in shapes.values())
