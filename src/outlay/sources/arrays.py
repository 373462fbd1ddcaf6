"""Arrays: examples held in memory as columns of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.sources.base import Batch, Shuffled, Stream


class Columns:
    """Examples as tensors of equal first dimension.

    Args:
        columns: name -> tensor of shape (examples, ...).
    """

    def __init__(self, columns: Mapping[str, torch.Tensor]) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if not lengths or len(set(lengths.values())) != 1:
            raise InputError(f"the columns must hold equally many examples, at least one column; found {lengths}")
        self._columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def collate(self, indices: Sequence[int]) -> Batch:
        """Return the rows at ``indices``."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return {name: column[rows] for name, column in self._columns.items()}


@dataclass(frozen=True)
class Arrays:
    """Examples you hold in memory; for use from Python.

    Args:
        train: name -> array or tensor of shape (examples, ...), such as ``inputs`` and ``labels``.
        test: the same columns for held-out examples; None when there are none.
    """

    title: ClassVar[str] = "Arrays in memory"
    paper: ClassVar[Paper | None] = None
    units: ClassVar[tuple[str, ...]] = ("examples", "tokens")

    train: dict[str, Any]
    test: dict[str, Any] | None = None

    def open(self, context: Context) -> Stream:
        """Return the training rows in a shuffled order."""
        return Shuffled(_columns(self.train), context)

    def held_out(self, context: Context) -> Columns:
        """Return the test rows."""
        if self.test is None:
            raise InputError("these arrays have no held-out part; give test={...}")
        return _columns(self.test)


def _columns(arrays: Mapping[str, Any]) -> Columns:
    return Columns({name: torch.as_tensor(array) for name, array in arrays.items()})
