"""The source seam: what a stage reads, with a cursor that tells what training has consumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch

from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator

#: columns of tensors whose first dimension counts examples: ``input_ids``, ``attention_mask``, ``labels`` for text; ``inputs``, ``labels``
#: otherwise
Batch = dict[str, torch.Tensor]

#: label of a position that teaches nothing
IGNORED = -100


@runtime_checkable
class Stream(Protocol):
    """A source being read. ``draw`` does not move the cursor, ``advance`` does: a batch counts as consumed once it has been trained on."""

    def draw(self, count: int) -> Batch:
        """Return this process's part of the next ``count`` examples; drawing twice gives the same."""
        ...

    def advance(self, count: int) -> None:
        """Move the cursor past ``count`` examples."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the cursor as plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved cursor; takes the same time wherever it lies."""
        ...


@runtime_checkable
class Examples(Protocol):
    """A fixed set of examples in memory or on disk."""

    def __len__(self) -> int:
        """Return how many examples there are."""
        ...

    def collate(self, indices: Sequence[int]) -> Batch:
        """Return the examples at ``indices`` as one batch on the CPU."""
        ...


@runtime_checkable
class Source(Protocol):
    """Describes where a stage's examples come from. ``units`` names what it spends beside steps, seconds and FLOPs."""

    units: ClassVar[tuple[str, ...]]

    def open(self, context: Context) -> Stream:
        """Return the training examples as a stream, in an order that depends on ``context.seed`` alone."""
        ...

    def held_out(self, context: Context) -> Examples:
        """Return examples that the stream never yields.

        Raises:
            InputError: when the source keeps none back.
        """
        ...


class Shuffled:
    """Reads examples in a fresh random order every epoch; the cursor is one integer.

    Epoch e's order is the permutation of the stream (seed, name, e), so any position is reached without reading what comes before.

    Args:
        examples: what is read.
        context: seed of the order, and which part of a batch this process gets: examples ``rank, rank + world, ...`` of it.
        name: name of the random stream.
    """

    def __init__(self, examples: Examples, context: Context, name: str = "order") -> None:
        if len(examples) == 0:
            raise InputError("the source holds no training example; look at its filters, split and path")
        self._examples, self._context, self._name = examples, context, name
        self._cursor = 0
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def draw(self, count: int) -> Batch:
        """Return this process's part of the next ``count`` examples."""
        mine = range(self._cursor + self._context.rank, self._cursor + count, self._context.world)
        return self._examples.collate([self._index(position) for position in mine])

    def advance(self, count: int) -> None:
        """Move the cursor past ``count`` examples."""
        self._cursor += count

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, len(self._examples))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, numpy_generator(self._context.seed, self._name, epoch).permutation(len(self._examples))
        return int(self._order[offset])

    def state_dict(self) -> dict[str, Any]:
        """Return the cursor: the number of examples consumed since the start, over all epochs."""
        return {"cursor": self._cursor, "examples": len(self._examples)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved cursor.

        Raises:
            InputError: when the number of examples is not what it was, since positions would then mean other examples.
        """
        if state["examples"] != len(self._examples):
            found, saved = len(self._examples), state["examples"]
            raise InputError(f"the source holds {found} examples, but {saved} when the run was saved; restore the data to resume")
        self._cursor = int(state["cursor"])


def count_units(batch: Batch) -> dict[str, float]:
    """Return what a batch is worth: ``examples``, and ``tokens`` (positions that are not padding) where it holds text."""
    units = {"examples": float(len(next(iter(batch.values()))))}
    if "attention_mask" in batch:
        units["tokens"] = float(batch["attention_mask"].sum())
    elif "input_ids" in batch:
        units["tokens"] = float(batch["input_ids"].numel())
    return units
