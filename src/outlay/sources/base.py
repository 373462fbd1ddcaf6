"""The source seam: what a stage reads, with a cursor that tells what training has consumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from outlay.context import Context
from outlay.errors import InputError
from outlay.record import Record
from outlay.rng import numpy_generator
from outlay.rollout.base import Work

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


@dataclass(frozen=True)
class Actor:
    """What a stream may use that makes its examples with the model.

    Args:
        model: as it is now.
        context: seed, tokenizer, device.
        knobs: the values of this step.
        leave: asked before each piece of generation; True charges it.
        spend: opens an account for the seconds of a ``with`` block.
        prepare: the objective's preparation of the whole batch.
        needs_greedy: whether the likeliest answer to each question is wanted beside the samples.
        needs_demonstrations: whether a row with the reference answer is.
        progress: share of the stage's budget that had been spent when acting began, in [0, 1].
        passes: asks leave for forward passes over so many positions, on an account's books; True charges them.
    """

    model: nn.Module
    context: Context
    knobs: Mapping[str, float]
    leave: Callable[[Work], bool]
    spend: Callable[[str], AbstractContextManager[None]]
    prepare: Callable[[Batch], Batch]
    needs_greedy: bool = False
    needs_demonstrations: bool = False
    progress: float = 0.0
    passes: Callable[[str, float], bool] = lambda account, positions: True


@dataclass(frozen=True)
class Acted:
    """What came of acting.

    Args:
        place: number of the first question that was asked.
        questions: how many were.
        cut: whether the budget ended it.
        seen: what was seen of all answers, for the journal: means and counts by name.
        detail: for those who ask, per answer, each of shape (answers,).
        kinds: by kind of question: ``asked``, ``answers``, ``success`` (mean of what its answers are worth, cut off at 0 and 1) and ``varied``
            (share of its groups whose answers differ in worth).
        divided: answers to a question -> how many questions got so many.
        shares: what a teacher expects each category to get of the next questions; empty without one.
    """

    place: int
    questions: int
    cut: bool
    seen: dict[str, float]
    detail: dict[str, torch.Tensor]
    kinds: dict[str, dict[str, float]] = field(default_factory=dict)
    divided: dict[int, int] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class ActingStream(Stream, Protocol):
    """A stream that makes its examples with the model: it acts when it is not ``ready``, and is then drawn from like any other."""

    @property
    def updates(self) -> int:
        """Updates that share out what is made at a time."""
        ...

    def outline(self, count: int) -> Batch:
        """Return a batch of the largest shape that ``count`` examples may come in, made up without the model, to measure costs with."""
        ...

    def ready(self) -> bool:
        """Return whether a batch is there to be drawn."""
        ...

    def act(self, count: int, actor: Actor) -> Acted:
        """Make the examples of the next updates of ``count`` examples each."""
        ...

    def seen(self) -> dict[str, float]:
        """Return what was seen of the examples being drawn, for the step's record."""
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that belong to ``state_dict``."""
        ...

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up saved tensors, after ``load_state_dict``."""
        ...


@runtime_checkable
class Watches(Stream, Protocol):
    """A stream that follows the run: what it yields next depends on what came of it."""

    def observe(self, record: Record) -> None:
        """Read the record of a step or an evaluation, on a branch too; what is learnt from it belongs to ``state_dict``."""
        ...


@runtime_checkable
class Mixes(Stream, Protocol):
    """A stream that says what its examples are mixed of."""

    def shares(self) -> dict[str, float]:
        """Return the share of the next examples that each part is expected to get, by name, summing to 1."""
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
        labels: how many of the examples somebody was paid to answer, >= 0; charged once, when a stage begins to read them.
    """

    def __init__(self, examples: Examples, context: Context, name: str = "order", labels: int = 0) -> None:
        if len(examples) == 0:
            raise InputError("the source holds no training example; look at its filters, split and path")
        self._examples, self._context, self._name = examples, context, name
        self.labels = labels
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
