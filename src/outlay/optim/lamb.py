"""LAMB: Adam whose step in each tensor is as long as the tensor's norm says, for large batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.optim.base import SCALES, decay_groups


@dataclass(frozen=True)
class Lamb:
    """Layer-wise adaptive moments. For each tensor w with gradient g at step t:

        m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2
        r = m_hat / (sqrt(v_hat) + eps),  m_hat = m / (1 - beta1^t),  v_hat = v / (1 - beta2^t)
        u = r + weight_decay w,  w <- w - lr q u,  q = clip(|w|, lower, upper) / |u|, and 1 where |w| or |u| is 0

    Vectors (biases, norms) do not decay, and keep q = 1. For a batch k times as large the paper scales the learning rate by sqrt(k) and the share
    of the warm-up by k; it clips the gradient's norm to 1 (knob ``clip``). The paper's versions differ in the bias correction; it is on here, as in the
    published algorithm, and off in many ports.

    The default learning rate is that of BERT at a batch of 512.

    Args:
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        bias_correction: whether m_hat and v_hat are m and v corrected for their start at 0, or m and v themselves.
        lower: smallest norm that a tensor counts with, >= 0.
        upper: largest, > lower; ports use 10.
        adapt: tensors with the ratio q: ``matrices``, ``all``, or ``none``, which is AdamW.
    """

    title: ClassVar[str] = "LAMB"
    paper: ClassVar[Paper | None] = Paper("1904.00962", "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2019)
    knobs: ClassVar[dict[str, float]] = {"lr": 6.25e-4, "weight_decay": 0.01}

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    bias_correction: bool = True
    lower: float = 0.0
    upper: float = 10.0
    adapt: Literal["matrices", "all", "none"] = "matrices"

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"beta1 and beta2 must lie in [0, 1), found {self.beta1} and {self.beta2}")
        if self.eps <= 0:
            raise ValueError(f"eps must be > 0, found {self.eps}")
        if not 0 <= self.lower < self.upper:
            raise ValueError(f"0 <= lower < upper must hold, found {self.lower} and {self.upper}")
        if self.adapt not in ("matrices", "all", "none"):
            raise ValueError(f"adapt must be matrices, all or none, found {self.adapt!r}")

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return the optimizer over the parameters."""
        return _Lamb(self, decay_groups(parameters))

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """Two moments an element, and a step count of 4 bytes a tensor."""
        return sum(2 * math.prod(shape) * element_size + 4 for shape in shapes.values())

    def adapts(self, parameter: torch.Tensor) -> bool:
        """Return whether the ratio applies to a tensor."""
        return self.adapt == "all" or (self.adapt == "matrices" and parameter.dim() >= 2)


class _Lamb(torch.optim.Optimizer):
    def __init__(self, spec: Lamb, groups: list[dict[str, object]]) -> None:
        self._spec = spec
        super().__init__(groups, dict(spec.knobs))
        for group in self.param_groups:
            group["weight_decay"] = spec.knobs["weight_decay"] * group[SCALES].get("weight_decay", 1.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step; a closure is not asked for."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"], group["weight_decay"])

    def _update(self, w: torch.Tensor, lr: float, weight_decay: float) -> None:
        spec, state, g = self._spec, self.state[w], w.grad
        assert g is not None
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["m"], state["v"] = torch.zeros_like(w), torch.zeros_like(w)
        state["step"] += 1
        t, m, v = int(state["step"]), state["m"], state["v"]
        m.mul_(spec.beta1).add_(g, alpha=1.0 - spec.beta1)
        v.mul_(spec.beta2).addcmul_(g, g, value=1.0 - spec.beta2)
        first, second = (1.0 - spec.beta1**t, 1.0 - spec.beta2**t) if spec.bias_correction else (1.0, 1.0)
        u = v.sqrt().div_(math.sqrt(second)).add_(spec.eps).reciprocal_().mul_(m).div_(first)
        if weight_decay:
            u.add_(w, alpha=weight_decay)
        if spec.adapts(w):
            u.mul_(trust_ratio(w, u, spec.lower, spec.upper).to(u.dtype))
        w.sub_(u, alpha=lr)


def trust_ratio(w: torch.Tensor, u: torch.Tensor, lower: float, upper: float) -> torch.Tensor:
    """Return clip(|w|, lower, upper) / |u| as a scalar in single precision or better; 1 where |w| or |u| is 0."""
    kind = torch.promote_types(w.dtype, torch.float32)
    length, wanted = u.norm(dtype=kind), w.norm(dtype=kind)
    ratio = wanted.clamp(lower, upper) / length
    return torch.where((wanted > 0) & (length > 0), ratio, torch.ones_like(ratio))
