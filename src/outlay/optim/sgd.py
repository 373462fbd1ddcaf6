"""SGD: stochastic gradient descent with momentum, by torch."""

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
class Sgd:
    """u <- momentum u + g + weight_decay w; w <- w - lr u (or lr (g + momentum u) with ``nesterov``), torch's implementation.

    Knobs: ``lr``, ``weight_decay`` and ``momentum``. Vectors do not decay.

    Args:
        nesterov: look ahead along the momentum; needs a momentum > 0.
    """

    title: ClassVar[str] = "SGD with momentum"
    paper: ClassVar[Paper | None] = None
    knobs: ClassVar[dict[str, float]] = {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.9}

    nesterov: bool = False

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return torch's SGD over the parameters."""
        return torch.optim.SGD(decay_groups(parameters), lr=self.knobs["lr"], momentum=self.knobs["momentum"], nesterov=self.nesterov)

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """One momentum buffer an element."""
        return sum(math.prod(shape) * element_size for shape in shapes.values())
