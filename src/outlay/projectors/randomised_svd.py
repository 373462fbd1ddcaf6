"""Randomised singular vectors: the leading ones to a good approximation, at the cost of a few thin products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import State
from outlay.projectors.base import Place
from outlay.projectors.stored_rows import StoredRows


@dataclass(frozen=True)
class RandomisedSvd(StoredRows):
    """R = G P^T with P, (rank, columns), close to the leading right singular vectors of the gradient at the last refresh:

        Q = orth(G^T O),  O (rows, k) of independent N(0, 1),  k = rank + oversample
        ``iterations`` times:  Q = orth(G^T orth(G Q))
        P = the leading right singular vectors of G Q, as rows, times Q^T

    orth is by QR. A gradient of rank at most ``rank`` passes whole; else the error nears that of the singular vectors with every iteration. Cost:
    2 + 2 iterations products with k columns, where singular vectors take one with all of them and a decomposition.

    Args:
        rank: directions kept, >= 1; the shorter side where that is less.
        oversample: directions looked at besides, >= 0.
        iterations: power iterations, >= 0; more for gradients whose singular values fall slowly.
    """

    title: ClassVar[str] = "Randomised singular vectors"
    paper: ClassVar[Paper | None] = Paper(
        "0909.4061",
        "Finding Structure with Randomness: Probabilistic Algorithms for Constructing Approximate Matrix Decompositions",
        2009,
    )

    oversample: int = 8
    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.oversample < 0 or self.iterations < 0:
            raise ValueError(f"oversample and iterations must be >= 0, found {self.oversample} and {self.iterations}")

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        """Find the range of ``g`` and the singular vectors within, in single precision or better."""
        a = g.to(torch.promote_types(g.dtype, torch.float32))
        count = min(self.rank + self.oversample, *g.shape)
        sketch = torch.randn(g.shape[0], count, generator=place.draw(g.device), device=g.device).to(a.dtype)
        q = torch.linalg.qr(a.T @ sketch).Q
        for _ in range(self.iterations):
            q = torch.linalg.qr(a.T @ torch.linalg.qr(a @ q).Q).Q
        within = torch.linalg.svd(torch.linalg.qr(a @ q).R).Vh[: min(self.rank, *g.shape)]
        state["rows"] = (within @ q.T).to(g.dtype)
