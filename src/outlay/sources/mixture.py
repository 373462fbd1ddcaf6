"""Mixture: examples of several domains, of which a teacher chooses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from outlay.arms import Arm, IntArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, nearest
from outlay.record import Record
from outlay.rng import numpy_generator
from outlay.schedules.base import require
from outlay.sources.base import IGNORED, ActingStream, Batch, Examples, Source, Stream, Watches
from outlay.teachers.base import Asking, Examined, Lessons, Ranks, Screens, Teacher
from outlay.teachers.uniform import Uniform

STREAM = "sources/mixture"


@dataclass(frozen=True)
class Mixture:
    """Domains are the arms of a teacher, which chooses the domain of every example of a batch; each domain is read in its own order.

    The teacher is asked anew for each batch, with the progress of the latest step, and is told which domains have been used. Where it learns from
    evaluations (``skill_it`` ...), it is handed each domain's held-out loss: put the exam ``domain_losses`` into the recipe and set
    ``evaluate.every``.

    Args:
        domains: name -> source of examples that are there; all of the same columns. Rows of text may differ in width and are padded.
        teacher: what chooses.
        difficulty: name -> difficulty, for teachers that go by it; larger is harder.
        watch: what the losses are called that teachers learn from: the metrics ``<watch>/<domain>``.
    """

    title: ClassVar[str] = "Mixture of domains"
    paper: ClassVar[Paper | None] = None

    domains: dict[str, Source]
    teacher: Teacher = field(default_factory=Uniform)
    difficulty: dict[str, float] = field(default_factory=dict)
    watch: str = "held_out_loss"

    def __post_init__(self) -> None:
        require(len(self.domains) > 0, "domains must hold at least one source, found none")
        for name, hardness in self.difficulty.items():
            require(name in self.domains, f"difficulty names {name!r}, which is no domain{nearest(name, self.domains)}")
            require(math.isfinite(hardness), f"difficulty of {name!r} must be finite, found {hardness}")

    @property
    def units(self) -> tuple[str, ...]:
        """All that a domain spends."""
        return tuple(dict.fromkeys(unit for source in self.domains.values() for unit in source.units))

    def open(self, context: Context) -> MixtureStream:
        """Return the domains' training examples as one stream.

        Raises:
            InputError: when a domain cannot be opened or makes its examples with the model, domains differ in their columns, or the teacher lacks
                what it goes by.
        """
        # every process moves all cursors alike and keeps its own rows
        alone = replace(context, rank=0, world=1)
        streams = {name: source.open(alone) for name, source in self.domains.items()}
        _must_match(streams)
        arms = [Arm(name, name, self.difficulty.get(name), _size(stream)) for name, stream in streams.items()]
        lessons = self.teacher.open(arms, context)
        if isinstance(lessons, Screens | Ranks):
            raise InputError(
                f"{type(self.teacher).__name__} judges single questions before they are asked, and a mixture chooses whole domains; choose another teacher"
            )
        return MixtureStream(self, streams, lessons, context)

    def held_out(self, context: Context) -> Joined:
        """Return the domains' held-out examples, one domain after the other.

        Raises:
            InputError: when a domain keeps none back.
        """
        return Joined({name: source.held_out(context) for name, source in self.domains.items()}, padding_of(context))


class MixtureStream:
    """The domains being read: a cursor, the domains' cursors, and what the teacher knows.

    Args:
        spec: what is read.
        streams: the domains, opened for a process that is alone.
        lessons: the teacher, opened on the domains in their order.
        context: seed of the choices, and which rows of a batch this process gets: ``rank, rank + world, ...``.
    """

    def __init__(self, spec: Mixture, streams: Mapping[str, Stream], lessons: Lessons, context: Context) -> None:
        self._spec, self._streams, self._lessons, self._context = spec, dict(streams), lessons, context
        self._cursor, self._progress = 0, 0.0

    @property
    def labels(self) -> int:
        """How many labelled examples all domains hold."""
        return sum(int(getattr(stream, "labels", 0)) for stream in self._streams.values())

    def draw(self, count: int) -> Batch:
        """Return this process's part of the next ``count`` examples."""
        chosen = self._choose(count)
        mine = np.arange(self._context.rank, count, self._context.world)
        parts, places = [], []
        for arm, stream in enumerate(self._streams.values()):
            positions = np.flatnonzero(chosen == arm)
            kept = np.flatnonzero(positions % self._context.world == self._context.rank)
            if len(kept):
                whole = stream.draw(len(positions))
                parts.append({name: column[torch.from_numpy(kept)] for name, column in whole.items()})
                places.append(positions[kept])
        return _ordered(parts, np.searchsorted(mine, np.concatenate(places)), padding_of(self._context))

    def advance(self, count: int) -> None:
        """Move past ``count`` examples, and tell the teacher which domains they were of."""
        chosen = self._choose(count)
        for stream, used in zip(self._streams.values(), np.bincount(chosen, minlength=len(self._streams)).tolist(), strict=True):
            if used:
                stream.advance(used)
        self._lessons.update(chosen, [])
        self._cursor += count

    def observe(self, record: Record) -> None:
        """Note the progress, and hand an evaluation's losses of the domains to a teacher that learns from them."""
        self._progress = record.progress
        if record.kind != "evaluation" or not isinstance(self._lessons, Examined):
            return
        losses = np.array([record.metrics.get(f"{self._spec.watch}/{name}", math.nan) for name in self._streams], np.float64)
        if not np.all(np.isnan(losses)):
            self._lessons.examined(losses, record.progress)

    def shares(self) -> dict[str, float]:
        """Return the share of the next examples that each domain is expected to get, by name, summing to 1."""
        return dict(zip(self._streams, self._lessons.shares(self._asking(1)).tolist(), strict=True))

    def _choose(self, count: int) -> IntArray:
        return self._lessons.choose(self._asking(count))

    def _asking(self, count: int) -> Asking:
        arms, rng = len(self._streams), numpy_generator(self._context.seed, STREAM, self._cursor)
        return Asking(count, self._progress, np.full(arms, np.nan), np.zeros(arms), rng)

    def state_dict(self) -> dict[str, Any]:
        """Return the cursors, the progress and what the teacher knows."""
        return {
            "cursor": self._cursor,
            "progress": self._progress,
            "domains": {name: stream.state_dict() for name, stream in self._streams.items()},
            "lessons": self._lessons.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved place.

        Raises:
            InputError: when the domains, or what a domain holds, are not what they were.
        """
        saved = list(state["domains"])
        if sorted(saved) != sorted(self._streams):
            raise InputError(
                f"the mixture holds {', '.join(self._streams)}, but {', '.join(saved)} when the run was saved; restore it to resume"
            )
        for name, stream in self._streams.items():
            stream.load_state_dict(state["domains"][name])
        self._lessons.load_state_dict(state["lessons"])
        self._cursor, self._progress = int(state["cursor"]), float(state["progress"])


class Joined:
    """Several sets of examples as one, the first set's first.

    Args:
        parts: name -> examples of the same columns; rows of text may differ in width.
        padding: token that widens rows.
    """

    def __init__(self, parts: Mapping[str, Examples], padding: int = 0) -> None:
        self.parts, self._padding = dict(parts), padding
        self._edges = np.cumsum([len(part) for part in self.parts.values()])

    def __len__(self) -> int:
        return int(self._edges[-1])

    def collate(self, indices: Sequence[int]) -> Batch:
        """Return the examples at ``indices`` in their order."""
        wanted = np.asarray(indices, np.int64)
        owners = np.searchsorted(self._edges, wanted, side="right")
        parts, places = [], []
        for number, part in enumerate(self.parts.values()):
            here = np.flatnonzero(owners == number)
            if len(here):
                start = int(self._edges[number]) - len(part)
                parts.append(part.collate((wanted[here] - start).tolist()))
                places.append(here)
        if not parts:
            return next(iter(self.parts.values())).collate([])
        return _ordered(parts, np.concatenate(places), self._padding)


def padding_of(context: Context) -> int:
    """Return the tokenizer's padding, or 0 where there is none."""
    found = getattr(context.tokenizer, "pad_token_id", None)
    return 0 if found is None else int(found)


def joined(parts: Sequence[Batch], padding: int) -> Batch:
    """Return the rows of batches of the same columns as one batch; rows of text are padded on the right to the widest.

    Padding is masked and teaches nothing: columns of the shape of ``input_ids`` are filled with the padding token, ``labels`` with what is
    ignored, all others with 0.
    """
    if "input_ids" in parts[0]:
        width = max(part["input_ids"].shape[1] for part in parts)
        parts = [_widened(part, width, {"input_ids": padding, "labels": IGNORED}) for part in parts]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _widened(batch: Batch, width: int, fillers: Mapping[str, int]) -> Batch:
    shape = batch["input_ids"].shape
    if shape[1] == width:
        return batch
    return {
        name: functional.pad(column, (0, width - shape[1]), value=fillers.get(name, 0)) if column.shape == shape else column
        for name, column in batch.items()
    }


def _ordered(parts: Sequence[Batch], places: IntArray, padding: int) -> Batch:
    """Return the rows of the parts, row i at ``places[i]``."""
    order = torch.from_numpy(np.argsort(places))
    return {name: column[order] for name, column in joined(parts, padding).items()}


def _size(stream: Stream) -> int | None:
    found = stream.state_dict().get("examples")
    return int(found) if isinstance(found, int) else None


def _must_match(streams: Mapping[str, Stream]) -> None:
    """Refuse domains whose batches cannot be put together."""
    first, wanted = "", ""
    for name, stream in streams.items():
        if isinstance(stream, ActingStream | Watches):
            why = "makes its examples with the model" if isinstance(stream, ActingStream) else "follows the run itself"
            raise InputError(f"the domain {name!r} {why}, and a mixture reads examples that are there; use another source")
        if getattr(stream, "rows_together", 1) > 1:
            raise InputError(
                f"the domain {name!r} yields rows that belong together, and a mixture chooses single examples; use another source"
            )
        found = _columns(stream.draw(1))
        first, wanted = first or name, wanted or found
        if found != wanted:
            raise InputError(f"the domains {first!r} and {name!r} differ in their columns: {wanted}, and {found}; make them alike")


def _columns(batch: Batch) -> str:
    """Return names, types and shapes of a batch's columns; the width of text is left out."""
    text = batch["input_ids"].shape if "input_ids" in batch else None
    shapes = {name: "(tokens)" if column.shape == text else str(tuple(column.shape[1:])) for name, column in batch.items()}
    return ", ".join(f"{name} {str(batch[name].dtype).removeprefix('torch.')} {shapes[name]}" for name in sorted(batch))
