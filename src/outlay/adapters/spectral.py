"""Sparse spectral training: all singular values, and a few pairs of singular vectors at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from outlay.adapters.base import Moment, forget, make_plain, reparametrised, swap
from outlay.adapters.restarting import Restarting, at_least_single, since_restart
from outlay.catalog import Paper
from outlay.rng import torch_generator


class _Spectrum(torch.autograd.Function):
    """W = U diag(s) V^T over active and resting pairs, with the enhanced gradient of the active vectors."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, s: torch.Tensor, u: torch.Tensor, v: torch.Tensor, active: torch.Tensor,
        u_rest: torch.Tensor, v_rest: torch.Tensor, rest: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        ctx.save_for_backward(s, u, v, active, u_rest, v_rest, rest)
        with torch.autocast(s.device.type, enabled=False):  # the backward pass runs without it, and types must fit
            return (u * s[active]) @ v.T + (u_rest * s[rest]) @ v_rest.T

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dw: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        s, u, v, active, u_rest, v_rest, rest = ctx.saved_tensors
        right = dw @ v
        ds = torch.empty_like(s)
        ds[active] = (u * right).sum(0)
        ds[rest] = (u_rest * (dw @ v_rest)).sum(0)
        # a value that has gone below 0 turns its vectors' gradients round; its size is left out either way
        sign = torch.where(s[active] < 0, -1.0, 1.0).to(s.dtype)
        return ds, right * sign, (dw.T @ u) * sign, None, None, None, None


class Spectrum(Restarting):
    """A linear layer with W = U diag(s) V^T: s trained whole, and of U and V the columns ``active``."""

    def __init__(self, layer: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = layer.weight.detach()
        u, s, vt = torch.linalg.svd(at_least_single(weight), full_matrices=False)
        self.s = nn.Parameter(s.to(weight.dtype))
        chosen, others = self._choose(min(rank, len(s)), generator)
        for name, index in (("active", chosen), ("rest", others)):
            self.register_buffer(name, index)
        self.u = nn.Parameter(u[:, chosen].to(weight.dtype).contiguous())
        self.v = nn.Parameter(vt[chosen].T.to(weight.dtype).contiguous())
        self.register_buffer("u_rest", u[:, others].to(weight.dtype).contiguous())
        self.register_buffer("v_rest", vt[others].T.to(weight.dtype).contiguous())
        self.bias = layer.bias

    active: torch.Tensor
    rest: torch.Tensor
    u_rest: torch.Tensor
    v_rest: torch.Tensor

    def effective(self) -> torch.Tensor:
        """Return U diag(s) V^T."""
        weight: torch.Tensor = _Spectrum.apply(self.s, self.u, self.v, self.active, self.u_rest, self.v_rest, self.rest)
        return weight

    def factors(self) -> tuple[nn.Parameter, ...]:
        """The active vectors."""
        return self.u, self.v

    def _choose(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw ``count`` pairs one after the other without replacement, each in proportion to |s|; return those and the others, both sorted."""
        # the largest of log p + Gumbel noise are such draws
        uniform = torch.rand(len(self.s), generator=generator).clamp_min(1e-12)
        keys = self.s.detach().float().abs().clamp_min(1e-30).log() - (-uniform.log()).log().to(self.s.device)
        order = keys.argsort(descending=True)
        return order[:count].sort().values, order[count:].sort().values

    @torch.no_grad()
    def normalise(self) -> None:
        """Give the active vectors length 1."""
        for factor in self.factors():
            factor.copy_(nn.functional.normalize(factor, dim=0))

    @torch.no_grad()
    def resample(self, generator: torch.Generator) -> None:
        """Choose other active pairs; W stays as it is."""
        u, v = self._whole()
        self._set(u, v, *self._choose(len(self.active), generator))

    @torch.no_grad()
    def decompose(self) -> None:
        """Make U and V orthonormal again and s >= 0, falling, with the same product."""
        u, s, vt = torch.linalg.svd(at_least_single(self.effective()), full_matrices=False)
        self.s.copy_(s)
        self._set(u, vt.T, self.active, self.rest)

    def _whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        place = torch.cat([self.active, self.rest]).argsort()
        return torch.cat([self.u, self.u_rest], 1)[:, place], torch.cat([self.v, self.v_rest], 1)[:, place]

    def _set(self, u: torch.Tensor, v: torch.Tensor, active: torch.Tensor, rest: torch.Tensor) -> None:
        # in place: the optimizer and checkpoints hold these very tensors
        self.active.copy_(active)
        self.rest.copy_(rest)
        self.u.copy_(u[:, active])
        self.v.copy_(v[:, active])
        self.u_rest.copy_(u[:, rest])
        self.v_rest.copy_(v[:, rest])


@dataclass(frozen=True)
class SparseSpectral:
    """W = U diag(s) V^T, at first the singular value decomposition of the layer's own weights, so nothing changes at the start.

        trained:  all of s by its gradient, ds_i = u_i^T (dL/dW) v_i
                  u_i and v_i of ``rank`` active pairs by du_i = (dL/dW) v_i, dv_i = (dL/dW)^T u_i   (an update rule: the factor s_i left out)
        after every update:          active u_i and v_i scaled to length 1
        after every ``period``:      other active pairs, without replacement, p_i = s_i / sum_j s_j; their optimizer state dropped
        after ceil(k / rank) periods:  the decomposition computed anew, k = min(in, out); the state of s dropped as well

    For ``warmup`` updates after each choice, update n counts for n / warmup of itself in the active vectors. A value of s below 0, which has no
    place in a decomposition, turns its vectors' rule round, so that it still descends, until the next decomposition. Trained:
    rank (in + out) + k floats a matrix; kept besides, without gradients: the other k - rank pairs. The change of W can reach any rank.
    Period and warm-up are from memory of the paper.

    Args:
        rank: active pairs, >= 1; a layer narrower than that trains all of its pairs.
        period: updates between choices, >= 1.
        warmup: updates until the active vectors' learning rate is whole after a choice, >= 0 and at most ``period``.
        targets: names of the linear layers; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "Sparse spectral training"
    paper: ClassVar[Paper | None] = Paper(
        "2405.15481", "Sparse Spectral Training and Inference on Euclidean and Hyperbolic Neural Networks", 2024
    )

    rank: int = 64
    period: int = 200
    warmup: int = 20
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or self.period < 1:
            raise ValueError(f"rank and period must be >= 1, found {self.rank} and {self.period}")
        if not 0 <= self.warmup <= self.period:
            raise ValueError(f"warmup must lie between 0 and period, found {self.warmup} and {self.period}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with every layer decomposed; the first pairs come from the streams (seed, "adapter/spectral/" and the layer's name).

        Raises:
            InputError: when no layer is named as ``targets`` say.
        """

        def make(name: str, layer: nn.Linear) -> nn.Module:
            return Spectrum(layer, self.rank, torch_generator(seed, f"adapter/spectral/{name}"))

        return swap(module, make, self.targets)

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with dense linear layers."""
        return make_plain(module)

    def share(self, step: int) -> float:
        """Return how much of its update the active vectors keep at update ``step``, from 1."""
        count = since_restart(step, self.period)
        return 1.0 if count is None or count >= self.warmup else count / self.warmup

    def before(self, module: nn.Module, moment: Moment) -> None:
        """Copy the active vectors where part of the update will be taken back."""
        if self.share(moment.step) < 1:
            for _, layer in _layers(module):
                layer.remember()

    def after(self, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        """Scale the active vectors to length 1; choose others, or decompose, when it is time."""
        share, iteration = self.share(moment.step), moment.step // self.period
        restart = moment.step % self.period == 0
        for name, layer in _layers(module):
            if share < 1:
                layer.shorten(share)
            layer.normalise()
            if restart:
                if iteration % -(-len(layer.s) // len(layer.active)) == 0:
                    layer.decompose()
                    forget(optimizer, layer.s)
                layer.resample(torch_generator(moment.seed, f"adapter/spectral/{name}", moment.step))
                for factor in layer.factors():
                    forget(optimizer, factor)


def _layers(module: nn.Module) -> list[tuple[str, Spectrum]]:
    return [(name, layer) for name, layer in reparametrised(module) if isinstance(layer, Spectrum)]
