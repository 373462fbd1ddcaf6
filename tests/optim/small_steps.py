"""What tests of subspace optimizers share: random gradients, steps along them, and the regression that methods are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from outlay.optim import OptimizerSpec, follow

Drawn = list[torch.Tensor]


def gradients(count: int, shape: tuple[int, ...] = (6, 4), seed: int = 0, dtype: torch.dtype = torch.float64) -> Drawn:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=dtype) for _ in range(count)]


def positions(spec: OptimizerSpec, start: torch.Tensor, steps: Sequence[torch.Tensor], name: str = "w", **knobs: float) -> Drawn:
    """The parameter at the start and after a step for each gradient."""
    w = nn.Parameter(start.clone())
    optimizer = spec.build([(name, w)])
    for knob, value in knobs.items():
        follow(optimizer, knob, value)
    seen = [start.clone()]
    for gradient in steps:
        w.grad = gradient.clone()
        optimizer.step()
        # an optimizer that wrote into the gradient would spoil what others read of it
        assert torch.equal(w.grad, gradient)
        seen.append(w.detach().clone())
    return seen


def drive(spec: OptimizerSpec, start: torch.Tensor, steps: Sequence[torch.Tensor], name: str = "w", **knobs: float) -> torch.Tensor:
    return positions(spec, start, steps, name, **knobs)[-1]


def updates(spec: OptimizerSpec, steps: Sequence[torch.Tensor], name: str = "w", **knobs: float) -> Drawn:
    """What each step adds to a parameter that begins at zero, over -lr."""
    seen = positions(spec, torch.zeros_like(steps[0]), steps, name, lr=1.0, **knobs)
    return [before - after for before, after in pairwise(seen)]


def kept(spec: OptimizerSpec, shape: tuple[int, ...], steps: int = 1) -> dict[str, int]:
    """How many numbers each part of the state holds after some steps."""
    w = nn.Parameter(torch.zeros(shape))
    optimizer = spec.build([("w", w)])
    for gradient in gradients(steps, shape, dtype=torch.float32):
        w.grad = gradient
        optimizer.step()
    return {name: value.numel() for name, value in optimizer.state[w].items()}


def regression(spec: OptimizerSpec, lr: float, steps: int = 300, rank: int | None = None, seed: int = 0, condition: float = 1.0) -> float:
    """Relative error on 64 x 32 weights W0 + delta, learnt from W0 by batches of 64 at a learning rate that falls as a cosine to zero.

    Args:
        rank: of delta; None for full.
        condition: largest over smallest standard deviation of the inputs.
    """
    draw = torch.Generator().manual_seed(seed)
    start = torch.randn(64, 32, generator=draw) / 32**0.5
    delta = torch.randn(64, 32, generator=draw) / 32**0.5
    if rank is not None:
        delta = torch.randn(64, rank, generator=draw) @ torch.randn(rank, 32, generator=draw) / (32 * rank) ** 0.5
    spread = torch.logspace(0, -1, 32, base=condition)
    w = nn.Parameter(start.clone())
    optimizer = spec.build([("w", w)], seed)
    for step in range(steps):
        x = torch.randn(64, 32, generator=draw) * spread
        w.grad = (w.detach() - start - delta) @ x.T @ x / 64
        follow(optimizer, "lr", lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item()))
        optimizer.step()
    wrong = (w.detach() - start - delta) * spread
    return float(wrong.norm() / (delta * spread).norm())


def follows_adam(spec: OptimizerSpec, eps: float, late_eps: bool, decay_first: bool, name: str, shape: tuple[int, ...] = (6, 4)) -> bool:
    """Say whether a parameter of this name and shape takes Adam's steps, to the last term."""
    start, steps, lr, decay = gradients(1, shape, seed=3)[0], [g * 1e-5 for g in gradients(10, shape)], 0.01, 0.3 if len(shape) > 1 else 0.0
    w, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for t, g in enumerate(steps, 1):
        w = w * (1 - lr * decay) if decay_first else w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        one, two = 1 - 0.9**t, (1 - 0.999**t) ** 0.5
        w = w - lr * two / one * m / (v.sqrt() + eps * (1 if late_eps else two))
        w = w if decay_first else w * (1 - lr * decay)
    return torch.allclose(drive(spec, start, steps, name, lr=lr, weight_decay=0.3), w, rtol=1e-9)
