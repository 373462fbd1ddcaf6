"""Random orthonormal directions: a subspace that knows nothing of the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import State
from outlay.projectors.base import Place
from outlay.projectors.stored_rows import StoredRows


@dataclass(frozen=True)
class Orthonormal(StoredRows):
    """R = G P^T with the rows of P, (rank, columns), an orthonormal basis of a uniformly random subspace, drawn anew at every refresh.

    On average ||R||^2 = (rank / columns) ||G||^2.

    Args:
        rank: directions kept, >= 1; the shorter side where that is less.
    """

    title: ClassVar[str] = "Random orthonormal directions"
    paper: ClassVar[Paper | None] = Paper(
        "2411.07837", "FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable Training", 2024
    )

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        """Make independent N(0, 1) columns orthonormal by QR, in single precision or better; ``g`` is not looked at."""
        draw = torch.randn(g.shape[1], min(self.rank, *g.shape), generator=place.draw(g.device), device=g.device)
        q, r = torch.linalg.qr(draw.to(torch.promote_types(g.dtype, torch.float32)))
        # QR's own choice of signs is not uniform
        state["rows"] = (q * r.diagonal().sign()).T.to(g.dtype).contiguous()
