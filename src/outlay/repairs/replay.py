"""Replay: rows that teach nothing give way to stored ones whose advantages were large."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from outlay.arms import FloatArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.repairs.base import Group, Workshop
from outlay.schedules.base import require
from outlay.sources.base import IGNORED, Batch
from outlay.sources.pairs import MULTIPLE


@dataclass(frozen=True)
class Replay:
    """Fill a prepared batch's silent rows (advantage 0 on every token) with stored rows, drawn with P(j) = |A_j|^alpha / sum_k |A_k|^alpha.

    |A_j| is the mean absolute advantage of the row's answer. The batch's own rows that teach are stored first, and may thus be drawn again; of what is
    stored the latest ``capacity`` rows stay. Draws are with replacement, so that the batch keeps its size, and no generation is charged. Stored
    rows come back with the advantages, ``old`` and ``behaviour`` log probabilities of their own time, unchanged: clipping bounds how far off policy
    they are. They take over the group number of the row whose place they take, so a loss that couples the rows of a group sees strangers. While
    nothing is stored the batch stays as it is.

    The objective must keep silent rows (``silent="keep"``). The released code fills a batch with up to a tenth of fully correct
    answers as well; this does not.

    Args:
        alpha: >= 0; 0 draws uniformly, large values the largest advantages alone.
        capacity: rows stored, > 0; None for half of the batch's rows, as released.
    """

    title: ClassVar[str] = "Selective sample replay (SSR)"
    paper: ClassVar[Paper | None] = Paper(
        "2504.08837", "VL-Rethinker: Incentivizing Self-Reflection of Vision-Language Models with Reinforcement Learning", 2025
    )

    alpha: float = 1.0
    capacity: int | None = None

    def __post_init__(self) -> None:
        require(0 <= self.alpha < float("inf"), f"alpha must be a finite number >= 0, found {self.alpha}")
        require(self.capacity is None or self.capacity > 0, f"capacity must be > 0, found {self.capacity}")

    def open(self, context: Context) -> Replaying:
        """Return the repair."""
        return Replaying(self)


@dataclass(frozen=True)
class _Stored:
    """A row: columns over its tokens without padding, (length, ...), and the others, (...)."""

    wide: dict[str, torch.Tensor]
    single: dict[str, torch.Tensor]

    @property
    def length(self) -> int:
        return len(self.wide["input_ids"])

    @property
    def magnitude(self) -> float:
        answered = self.wide["labels"] != IGNORED
        return float(self.wide["advantage"][answered].abs().double().mean())


@dataclass
class Replaying:
    """The latest rows that taught."""

    spec: Replay
    _rows: deque[_Stored] = field(default_factory=deque)
    _lengths: list[int] = field(default_factory=list)

    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        """Return the first ``wanted`` groups as they are."""
        return list(groups[:wanted])

    def replay(self, batch: Batch, padding: int, rng: np.random.Generator) -> Batch:
        """Return the batch with its silent rows replaced; demonstrations stay.

        Raises:
            ValueError: when the objective works out no advantages.
        """
        require(
            "advantage" in batch,
            "replay needs an objective that works out advantages when a batch is prepared; found no column 'advantage'",
        )
        loud = (batch["advantage"] != 0).any(1)
        silent = ~loud & ~batch["demonstration"].bool() if "demonstration" in batch else ~loud
        self._store(batch, loud.nonzero().flatten().tolist())
        places = silent.nonzero().flatten().tolist()
        if not places or not self._rows:
            return batch
        drawn = rng.choice(len(self._rows), size=len(places), p=chances([row.magnitude for row in self._rows], self.spec.alpha))
        return _replaced(batch, places, [self._rows[int(i)] for i in drawn], padding)

    def _store(self, batch: Batch, numbers: list[int]) -> None:
        width = batch["input_ids"].shape[1]
        wide = [name for name, column in batch.items() if column.dim() > 1 and column.shape[1] == width]
        single = [name for name in batch if name not in wide and name != "group"]
        for row in self._rows:
            if row.wide.keys() != set(wide) or row.single.keys() != set(single):  # another objective prepared it
                self._rows.clear()
                break
        for i in numbers:
            length = int(batch["attention_mask"][i].sum())
            self._rows.append(
                _Stored(
                    {name: batch[name][i, :length].detach().cpu().clone() for name in wide},
                    {name: batch[name][i].detach().cpu().clone() for name in single},
                )
            )
        capacity = self.spec.capacity or max(1, len(batch["labels"]) // 2)
        while len(self._rows) > capacity:
            self._rows.popleft()

    def state_dict(self) -> dict[str, Any]:
        """Return the lengths of the stored rows."""
        return {"lengths": [row.length for row in self._rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved lengths; the rows come with ``load_tensors``."""
        self._lengths = [int(length) for length in state["lengths"]]
        self._rows.clear()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the stored rows: ``wide/<column>`` one row after the other, ``single/<column>`` stacked."""
        if not self._rows:
            return {}
        first = self._rows[0]
        wide = {f"wide/{name}": torch.cat([row.wide[name] for row in self._rows]) for name in first.wide}
        return wide | {f"single/{name}": torch.stack([row.single[name] for row in self._rows]) for name in first.single}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up saved rows."""
        lengths = self._lengths
        parts = {name: tensor.split(lengths) if name.startswith("wide/") else tensor.unbind() for name, tensor in tensors.items()}
        self._rows = deque(
            _Stored(
                {name.removeprefix("wide/"): part[i].clone() for name, part in parts.items() if name.startswith("wide/")},
                {name.removeprefix("single/"): part[i].clone() for name, part in parts.items() if name.startswith("single/")},
            )
            for i in range(len(lengths))
        )


def chances(magnitudes: Sequence[float], alpha: float) -> FloatArray:
    """Return |A_j|^alpha / sum_k |A_k|^alpha of magnitudes > 0; computed relative to the largest, so that no power overflows."""
    relative = np.asarray(magnitudes, np.float64) / max(magnitudes)
    weights: FloatArray = relative**alpha
    return weights / weights.sum()


def _replaced(batch: Batch, places: list[int], rows: list[_Stored], padding: int) -> Batch:
    """Return a copy of the batch, wide enough, with stored rows in these places."""
    width = batch["input_ids"].shape[1]
    longest = max(row.length for row in rows)
    wider = max(width, -(-longest // MULTIPLE) * MULTIPLE if longest > width else width)
    fill = {"input_ids": padding, "labels": IGNORED}
    found: Batch = {}
    for name, column in batch.items():
        if name == "group":
            found[name] = column
        elif name in rows[0].single:
            found[name] = column.clone()
            for place, row in zip(places, rows, strict=True):
                found[name][place] = row.single[name].to(column.device)
        else:
            found[name] = column.new_full((column.shape[0], wider, *column.shape[2:]), fill.get(name, 0))
            found[name][:, :width] = column
            for place, row in zip(places, rows, strict=True):
                found[name][place] = fill.get(name, 0)
                found[name][place, : row.length] = row.wide[name].to(column.device)
    return found
