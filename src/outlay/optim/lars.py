"""LARS: momentum SGD whose step in each tensor is as long as the tensor's norm says, for large batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.optim.base import decay_groups
from outlay.optim.lamb import trust_ratio


@dataclass(frozen=True)
class Lars:
    """Layer-wise adaptive rate scaling, as it is written beside LAMB. For each tensor w with gradient g:

        u <- momentum u + (1 - momentum) (g + weight_decay w)
        w <- w - lr q u,  q = clip(|w|, lower, upper) / |u|, and 1 where |w| or |u| is 0

    Vectors (biases, norms) do not decay, and keep q = 1. The first form of the method (You et al., arXiv 1708.03888) takes the ratio of the gradient
    before the momentum, times a trust coefficient, and is not this. Knobs: ``lr``, ``weight_decay`` and ``momentum``.

    Args:
        lower: smallest norm that a tensor counts with, >= 0.
        upper: largest, > lower.
        adapt_vectors: give vectors the ratio as well.
    """

    title: ClassVar[str] = "LARS"
    paper: ClassVar[Paper | None] = Paper("1904.00962", "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2019)
    knobs: ClassVar[dict[str, float]] = {"lr": 0.01, "weight_decay": 0.0, "momentum": 0.9}

    lower: float = 0.0
    upper: float = 10.0
    adapt_vectors: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.lower < self.upper:
            raise ValueError(f"0 <= lower < upper must hold, found {self.lower} and {self.upper}")

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return the optimizer over the parameters."""
        return _Lars(self, decay_groups(parameters))

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """One momentum buffer an element."""
        return sum(math.prod(shape) * element_size for shape in shapes.values())


class _Lars(torch.optim.Optimizer):
    def __init__(self, spec: Lars, groups: list[dict[str, object]]) -> None:
        self._spec = spec
        super().__init__(groups, dict(spec.knobs))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step; a closure is not asked for."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"], group["weight_decay"], group["momentum"])

    def _update(self, w: torch.Tensor, lr: float, weight_decay: float, momentum: float) -> None:
        spec, state, g = self._spec, self.state[w], w.grad
        assert g is not None
        if not state:
            state["u"] = torch.zeros_like(w)
        u = state["u"].mul_(momentum).add_(g + weight_decay * w, alpha=1.0 - momentum)
        if w.dim() >= 2 or spec.adapt_vectors:
            u = u * trust_ratio(w, u, spec.lower, spec.upper).to(u.dtype)
        w.sub_(lr * u)
