"""Singular vectors: the directions in which the last gradient is largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import State
from outlay.projectors.base import Place
from outlay.projectors.stored_rows import StoredRows


@dataclass(frozen=True)
class Svd(StoredRows):
    """R = G P^T with P, (rank, columns), the leading right singular vectors of the gradient at the last refresh: the best projector of that rank.

    Args:
        rank: directions kept, >= 1; the shorter side where that is less.
    """

    title: ClassVar[str] = "Leading singular vectors"
    paper: ClassVar[Paper | None] = Paper("2403.03507", "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", 2024)

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        """Take the leading right singular vectors of ``g``, in single precision or better."""
        kind = torch.promote_types(g.dtype, torch.float32)
        rows = torch.linalg.svd(g.to(kind), full_matrices=False)[2]
        # a slice would keep all of the singular vectors alive
        state["rows"] = rows[: min(self.rank, *g.shape)].to(g.dtype).clone(memory_format=torch.contiguous_format)
