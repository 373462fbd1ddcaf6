"""Projectors: which part of a gradient an optimizer keeps state for."""

from __future__ import annotations

from outlay.projectors.base import Place, Projector
from outlay.projectors.blocks import Blocks
from outlay.projectors.columns import Columns, Rows
from outlay.projectors.dct import Dct
from outlay.projectors.entries import Entries
from outlay.projectors.gaussian import Gaussian
from outlay.projectors.orthonormal import Orthonormal
from outlay.projectors.randomised_svd import RandomisedSvd
from outlay.projectors.svd import Svd

METHODS: dict[str, type] = {
    "svd": Svd,
    "randomised_svd": RandomisedSvd,
    "gaussian": Gaussian,
    "orthonormal": Orthonormal,
    "dct": Dct,
    "columns": Columns,
    "rows": Rows,
    "entries": Entries,
    "blocks": Blocks,
}

__all__ = [
    "METHODS",
    "Blocks",
    "Columns",
    "Dct",
    "Entries",
    "Gaussian",
    "Orthonormal",
    "Place",
    "Projector",
    "RandomisedSvd",
    "Rows",
    "Svd",
]
