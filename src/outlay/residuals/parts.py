"""What residual rules share: the remainder of a gradient, and how much an inner rule makes of one."""

from __future__ import annotations

from typing import Literal

import torch

from outlay.residuals.base import Split

Granularity = Literal["channel", "tensor"]
#: added to the length of a gradient before it divides
GUARD = 1e-8


def remainder(split: Split, share: float = 1.0) -> torch.Tensor:
    """Return G - ``share`` up(R), a tensor of its own."""
    return split.gradient.sub(split.lift(split.small), alpha=share)


def length(x: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """Return the Euclidean length, of all of ``x`` or along a dimension that is kept, in single precision or better."""
    return torch.linalg.vector_norm(x, dim=dim, keepdim=dim is not None, dtype=torch.promote_types(x.dtype, torch.float32))


def amplification(split: Split, granularity: Granularity) -> torch.Tensor:
    """Return ||N|| / (||R|| + 1e-8): one a row of the matrix, (rows, 1), or, by ``tensor``, one in all.

    Raises:
        ValueError: for rows where the coordinates have not a row for each row of the matrix.
    """
    if granularity == "tensor":
        return length(split.direction.raw) / (length(split.small) + GUARD)
    if split.small.dim() != 2 or len(split.small) != len(split.gradient):
        found = f"{tuple(split.small.shape)} for {tuple(split.gradient.shape)}"
        raise ValueError(f"a factor a channel needs coordinates for each row of the matrix, found {found}; take granularity 'tensor'")
    return length(split.direction.raw, 1) / (length(split.small, 1) + GUARD)
