"""Limiting growth: a contribution to the update is at most 1 % longer than at the step before."""

from __future__ import annotations

import torch

from outlay.layout import Layout, Slot, State
from outlay.residuals.parts import length

#: how much longer a contribution may be than at the step before
GAMMA = 1.01


def check_gamma(gamma: float | None) -> None:
    """Refuse a limit that would force a contribution to shrink."""
    if gamma is not None and gamma < 1:
        raise ValueError(f"gamma must be >= 1, or None for no limit, found {gamma}")


def limiter_layout(gamma: float | None) -> Layout:
    """Return what the limiter keeps: one length, in single precision."""
    return {} if gamma is None else {"length": Slot((), torch.float32)}


def limited(state: State, c: torch.Tensor, gamma: float | None, beside: torch.Tensor, times: float = 1.0) -> torch.Tensor:
    """Return ``c`` shortened, in place, to ``gamma`` times the length that was kept, and keep the length that it has now; what is returned
    is then multiplied by ``times``.

    Until a length is kept there is no limit, and a length that is nothing beside that of ``beside`` is never kept: after a first gradient of
    zero, or one that lies in the subspace but for rounding, a limit of 1 % a step would shut the contribution out for hundreds of steps.
    """
    if gamma is None:
        return c.mul_(times)
    before, now = state["length"], length(c)
    after = torch.where(before > 0, torch.minimum(now, gamma * before.to(now.dtype)), now)
    counts = now > torch.finfo(c.dtype).eps ** 0.5 * length(beside)
    state["length"] = torch.where(counts, after.float(), before)
    return c.mul_((after / now.clamp_min(torch.finfo(now.dtype).tiny) * times).to(c.dtype))
