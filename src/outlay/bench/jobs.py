"""A job: one workload, method, budget, peak and seed; and the name by which equal jobs are known, so that they are run once."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from outlay.bench.definition import Method, Workload
from outlay.catalog import describe
from outlay.knob import Knob
from outlay.train.reading import set_value

#: part of every job's name; raised when runs are no longer what they were
EDITION = 1


@dataclass(frozen=True)
class Job:
    """One run of a method on a workload.

    Args:
        workload: what is trained.
        method: what is changed.
        share: of the workload's full budget.
        peak: of the tuned knob.
        seed: root seed of the run.
    """

    workload: Workload
    method: Method
    share: float
    peak: float
    seed: int

    def recipe(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        plain = copy.deepcopy(self.workload.recipe)
        plain |= {"name": "bench", "budget": str(self.workload.budget(self.share)), "seed": self.seed}
        plain.setdefault("threads", 1)
        for stage in self.tuned(plain):
            stage.setdefault("knobs", {})[self.workload.knob] = self._knob()
        for path, value in self.method.set.items():
            set_value(plain, path, _at_peak(value, self.peak))
        return plain

    @cached_property
    def key(self) -> str:
        """A digest of what decides the outcome.

        Where the knob is an open-loop schedule and the budget counts steps, that is the sequence of its values, so that methods which come
        to the same numbers share a run.
        """
        plain = self.recipe()
        plain.pop("name")
        steps = self.workload.budget(self.share).limits.get("steps")
        schedule = self.method.schedule
        knob = Knob(self.peak, schedule) if schedule is not None else Knob(self.peak)
        asked = self._knob()
        (stage, *more) = plain["stages"]
        # unless ``set`` put something else there; and stages have clocks of their own
        if steps is not None and not knob.controllers() and not more and stage["knobs"][self.workload.knob] == asked:
            stage["knobs"][self.workload.knob] = [f"{knob.value(step / steps):.12g}" for step in range(int(steps))]
        program = self.method.program if self.method.program == "run" else f"{self.method.program} {self.method.order}"
        said = json.dumps([EDITION, program, plain], sort_keys=True, default=str)
        return hashlib.blake2b(said.encode(), digest_size=12).hexdigest()

    def _knob(self) -> dict[str, Any]:
        schedule = self.method.schedule
        return {"peak": self.peak} | ({"schedule": describe(schedule)} if schedule is not None else {})

    def tuned(self, plain: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the stages of the recipe's plain values whose knob is tuned."""
        return [stage for number, stage in enumerate(plain["stages"]) if not self.workload.stages or number in self.workload.stages]


def _at_peak(value: Any, peak: float) -> Any:
    if isinstance(value, dict):
        return {key: _at_peak(inner, peak) for key, inner in value.items()}
    if isinstance(value, list):
        return [_at_peak(inner, peak) for inner in value]
    return peak if value == "$peak" else value
