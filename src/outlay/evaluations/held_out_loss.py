"""Held-out loss: the objective's loss on examples that training never reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import nn

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.evaluations.base import ChargeBatch
from outlay.objectives.base import Binds, Objective, Prepares
from outlay.objectives.next_token import NextToken
from outlay.rng import numpy_generator
from outlay.sources.base import Batch, Source, count_units


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean loss over held-out examples, and the objective's other measures (accuracy ...), each weighted by supervised units.

    Args:
        objective: the loss that is measured.
        source: where the held-out examples come from; None for the last stage's source.
        examples: how many at most, > 0; a fixed random choice.
        batch_size: examples a forward pass, > 0.
        name: prefix of the metrics: ``<name>/loss`` ...
        part: from where to where in the held-out examples, as shares of them in [0, 1]; their order is fixed and no seed enters, so exams of
            parts that do not overlap share no example: one to tune on, one to report.
    """

    title: ClassVar[str] = "Held-out loss"
    paper: ClassVar[Paper | None] = None

    objective: Objective = field(default_factory=NextToken)
    source: Source | None = None
    examples: int = 512
    batch_size: int = 64
    name: str = "held_out"
    part: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.part[0] < self.part[1] <= 1:
            raise ValueError(f"part must read (from, to) with 0 <= from < to <= 1, found {self.part}")
        if self.examples <= 0 or self.batch_size <= 0:
            raise ValueError(f"examples and batch_size must be > 0, found {self.examples} and {self.batch_size}")

    def open(self, context: Context, source: Source) -> _Sitting:
        """Return the held-out batches, chosen by the stream (seed, name)."""
        if isinstance(self.objective, Binds) and getattr(self.objective, "passes", 0.0) > 0:
            _nothing_frozen()
        kept = (self.source or source).held_out(context)
        chosen = self._chosen(len(kept), context.seed)
        batches = [kept.collate(chosen[i : i + self.batch_size]) for i in range(0, len(chosen), self.batch_size)]
        bound = self.objective.bind(_nothing_frozen) if isinstance(self.objective, Binds) else self.objective
        return _Sitting(self, bound, batches, context)

    def _chosen(self, count: int, seed: int) -> list[int]:
        if self.part == (0.0, 1.0):
            mine = np.arange(count)
        else:
            start, end = (round(share * count) for share in self.part)
            mine = numpy_generator(0, "exam/parts").permutation(count)[start:end]
        if not len(mine):
            raise InputError(f"the part {self.part} of {count} held-out examples is empty; widen it or hold out more")
        order = numpy_generator(seed, f"exam/{self.name}").permutation(len(mine))[: self.examples]
        return [int(index) for index in mine[order]]


@dataclass(frozen=True)
class _Sitting:
    exam: HeldOutLoss
    objective: Objective
    batches: list[Batch]
    context: Context

    def bound(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for batch in self.batches:
            for unit, amount in count_units(batch).items():
                total[unit] = total.get(unit, 0.0) + amount
            first = batch.get("input_ids", batch.get("labels"))
            total["positions"] = total.get("positions", 0.0) + (first.numel() if first is not None else 0)
        return total

    def run(self, model: nn.Module, charge: ChargeBatch) -> dict[str, float]:
        sums: dict[str, float] = {}
        objective, weight = self.objective, 0.0
        knobs = dict(objective.knobs)
        for batch in self.batches:
            here = {name: column.to(self.context.device) for name, column in batch.items()}
            if isinstance(objective, Prepares):
                here = objective.prepare(model, here, knobs)
            units = objective.weight(here)
            loss, measures = objective(model, here, knobs)
            for name, value in {"loss": loss, **measures}.items():
                sums[name] = sums.get(name, 0.0) + units * float(value)
            weight += units
            charge(batch, 0.0)
        return {f"{self.exam.name}/{name}": total / weight if weight else math.nan for name, total in sums.items()}


def _nothing_frozen() -> nn.Module:
    raise InputError(
        "evaluations/held_out_loss has no frozen model that its objective could compare with; measure what needs none, such as next_token, or ask "
        "questions (exact_match)"
    )
