"""What tests of residual rules share: gradients split by orthonormal directions, with a direction that is not their multiple."""

from __future__ import annotations

import torch

from outlay.inner_rules.base import Direction
from outlay.residuals import Split


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


#: two orthonormal directions of four, as rows
P = torch.linalg.qr(drawn(4, 2, seed=5))[0].T.contiguous()


def split(g: torch.Tensor, factor: float = 0.7, seed: int = 1, raw: torch.Tensor | None = None) -> Split:
    """The split of a (rows, 4) gradient by ``P``; the direction is drawn."""
    return Split(g, g @ P.T, Direction(drawn(len(g), 2, seed=seed) if raw is None else raw, factor), lambda r: r @ P)
