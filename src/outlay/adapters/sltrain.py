"""SLTrain: sparse plus low-rank weights, trained from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from outlay.adapters.base import Reparametrised, make_plain, swap
from outlay.adapters.restarting import uniform
from outlay.catalog import Paper
from outlay.rng import torch_generator


def _dense(a: torch.Tensor, b: torch.Tensor, values: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    product = b @ a
    return product.flatten().index_add(0, support, values).view_as(product)


class _Rebuilt(torch.autograd.Function):
    """x W^T with W = B A plus values at the support. W is not kept for the backward pass but built again."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, values: torch.Tensor, support: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x, a, b, values, support)
        return functional.linear(x, _dense(a, b, values, support))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        x, a, b, values, support = ctx.saved_tensors
        dx = dy @ _dense(a, b, values, support) if ctx.needs_input_grad[0] else None
        dw = dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])
        return dx, b.T @ dw, dw @ a.T, dw.flatten().index_select(0, support), None


class SparsePlusLowRank(Reparametrised):
    """A linear layer with W = scale B A plus ``values`` at the flat positions ``support``."""

    def __init__(self, layer: nn.Linear, spec: SLTrain, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = layer.weight.shape
        like, bound = layer.weight, inputs**-0.5
        self.fixed_scale = spec.alpha / spec.rank
        self.a = uniform((spec.rank, inputs), bound, generator, like)
        self.b = nn.Parameter(torch.zeros(outputs, spec.rank, device=like.device, dtype=like.dtype))
        count = int(spec.density * outputs * inputs)
        self.support: torch.Tensor
        self.register_buffer("support", torch.randperm(outputs * inputs, generator=generator)[:count].sort().values.to(like.device))
        self.values = uniform((count,), bound, generator, like)
        self.gain = nn.Parameter(torch.ones((), device=like.device, dtype=like.dtype)) if spec.trained_scale else None
        self.bias = uniform((outputs,), outputs**-0.5, generator, like) if layer.bias is not None else None

    def _scaled(self) -> torch.Tensor:
        return self.a * (self.fixed_scale if self.gain is None else self.gain.tanh())

    def effective(self) -> torch.Tensor:
        """Return W."""
        return _dense(self._scaled(), self.b, self.values, self.support)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b; what is kept for the backward pass is x, the factors, the values and the support."""
        parts: tuple[torch.Tensor, ...] = (x, self._scaled(), self.b, self.values)
        if torch.is_autocast_enabled(x.device.type):  # inside a function of our own, autocast would cast some operands and not others
            parts = tuple(part.to(torch.get_autocast_dtype(x.device.type)) for part in parts)
        out: torch.Tensor = _Rebuilt.apply(*parts, self.support)
        return out if self.bias is None else out + self.bias.to(out.dtype)


@dataclass(frozen=True)
class SLTrain:
    """W = (alpha / rank) B A plus v at a random fixed support I, all from scratch:

        A ~ U(+-1 / sqrt(in)),  B = 0,  v ~ U(+-1 / sqrt(in)),  bias ~ U(+-1 / sqrt(out)),  |I| = floor(density in out)

    With D = dY^T X the gradients are dX = dY W, dB = s D A^T, dA = s B^T D, dv = D at I with s = alpha / rank; W is built again for them and not
    kept. Trained: rank (in + out) + floor(density in out) floats a matrix in place of in x out, and one index of 8 bytes kept for each of
    v. All else of the model (embeddings, norms, output layer) stays dense and trained. Low-rank factors alone cap the rank of W, the
    sparse part lifts that. With B = 0 the sparse part alone begins the training, slowly: short runs do better with the factors of ``low_rank``.
    At equal parameters on one matrix it does not beat a larger rank.

    Args:
        rank: columns of B, >= 1.
        alpha: scale of the low-rank part, > 0.
        density: share of W's entries in the support, in [0, 1].
        trained_scale: whether the scale is tanh of a trained number that starts at 1, in place of alpha / rank.
        targets: names of the linear layers; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "SLTrain"
    paper: ClassVar[Paper | None] = Paper(
        "2406.02214", "SLTrain: a sparse plus low-rank approach for parameter and memory efficient pretraining", 2024
    )

    rank: int = 128
    alpha: float = 32.0
    density: float = 0.03
    trained_scale: bool = False
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"rank must be >= 1 and alpha > 0, found {self.rank} and {self.alpha}")
        if not 0 <= self.density <= 1:
            raise ValueError(f"density must lie in [0, 1], found {self.density}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with weights and supports drawn from the streams (seed, "adapter/sltrain/" and the layer's name).

        Raises:
            InputError: when no layer is named as ``targets`` say.
        """

        def make(name: str, layer: nn.Linear) -> nn.Module:
            return SparsePlusLowRank(layer, self, torch_generator(seed, f"adapter/sltrain/{name}"))

        return swap(module, make, self.targets)

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with dense linear layers."""
        return make_plain(module)
