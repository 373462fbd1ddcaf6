"""Small real recipes, and what the tests of the train room share: reading runs, auditing books, clocks that only work moves, children."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from outlay import rng
from outlay.objectives import Classification
from outlay.reporting import read_run
from outlay.sources import Batch
from outlay.testing import FakeClock
from outlay.train import Recipe, load_recipe
from outlay.train.journal import read_journal

SCHEDULE = {"warmup": {"fraction": 0.1, "then": "rex"}}

#: documents for a language model: some are held out, by their hash
DOCUMENTS = tuple(
    f"{word} {i}: " + f"{word[::-1]}, then {i * i} and {word}. " * 6 for i in range(8) for word in ("apple", "basket", "cedar")
)


def plain_digits(**changes: Any) -> dict[str, Any]:
    """Plain values of a recipe that trains a small perceptron on the digits; ``changes`` replace its top-level ones."""
    plain: dict[str, Any] = {
        "name": "digits",
        "budget": "60 steps",
        "model": {"mlp": {"inputs": 64, "classes": 10, "hidden": [32], "dropout": 0.1}},
        "stages": [plain_stage()],
        "threads": 1,
    }
    return plain | changes


def plain_stage(**changes: Any) -> dict[str, Any]:
    """Plain values of its stage."""
    stage: dict[str, Any] = {
        "source": {"images": {"name": "digits"}},
        "objective": "classification",
        "optimizer": "adamw",
        "batch_size": 32,
        "knobs": {"lr": {"peak": 0.003, "schedule": SCHEDULE}, "clip": 1.0},
    }
    return stage | changes


#: an exam on the digits held out
EXAM = {"held_out_loss": {"objective": "classification", "examples": 64}}


def digits(**changes: Any) -> Recipe:
    """The recipe of ``plain_digits``."""
    return load_recipe(plain_digits(**changes))


def examined(**changes: Any) -> Recipe:
    """``digits`` with evaluations and a checkpoint every 10 steps."""
    return digits(**{"evaluate": {"exams": [EXAM], "every": 0.25}, "checkpoints": {"every_steps": 10}, **changes})


def language(**changes: Any) -> Recipe:
    """A recipe that trains a transformer of one layer on documents in memory, byte by byte."""
    plain: dict[str, Any] = {
        "name": "words",
        "budget": "12 steps",
        "model": {"transformer": {"hidden": 32, "layers": 1, "heads": 2, "context": 32, "tokenizer": "bytes"}},
        "stages": [
            {
                "source": {"text": {"texts": list(DOCUMENTS), "length": 32, "held_out_share": 0.2}},
                "batch_size": 8,
                "knobs": {"lr": {"peak": 0.003, "schedule": SCHEDULE}, "clip": 1.0},
            }
        ],
        "threads": 1,
    }
    return load_recipe(plain | changes)


def with_objective(recipe: Recipe, objective: Any, **knobs: Any) -> Recipe:
    """The same recipe with another objective in every stage, and more knobs."""
    stages = tuple(dataclasses.replace(stage, objective=objective, knobs={**stage.knobs, **knobs}) for stage in recipe.stages)
    return dataclasses.replace(recipe, stages=stages)


# ---- reading a run -----------------------------------------------------------------------------------------------------------------


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The journal's lines of one kind."""
    return [line for line in read_journal(folder) if line["kind"] == kind]


def result_of(folder: Path) -> dict[str, Any]:
    """What ``result.json`` says."""
    told: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return told


def weights(folder: Path) -> bytes:
    """The bytes of the final weights."""
    return (folder / "model" / "model.safetensors").read_bytes()


#: on a busy machine a real clock may run past a limit while the last evaluation is made; what must hold exactly is tried on a clock of our own
LATE = {"seconds": 0.5}


def audit(folder: Path) -> list[str]:
    """What does not add up: at every line accounts against the meter, every limit kept, and at the end journal against result.

    A run that was resumed is added up as the report does it: what a kill undid is taken back when the loss is booked.
    """
    problems: list[str] = []
    journal, run = read_journal(folder), read_run(folder)
    result = result_of(folder)
    limits = run.limits
    accounts: dict[str, dict[str, float]] = {}
    resumed = any(line["kind"] == "resume" for line in journal)
    for line in [] if resumed else journal:
        for account, book in line.get("charged", {}).items():
            for unit, amount in book.items():
                mine = accounts.setdefault(account, {})
                mine[unit] = mine.get(unit, 0.0) + amount
        spent = {unit: math.fsum(book.get(unit, 0.0) for book in accounts.values()) for unit in limits}
        seconds = math.fsum(book.get("seconds", 0.0) for book in accounts.values())
        if not math.isclose(seconds, line["at"], rel_tol=1e-9, abs_tol=1e-9):
            problems.append(f"line {line['n']}: the accounts hold {seconds} s and the meter says {line['at']}")
        problems += [
            f"line {line['n']}: {spent[unit]} {unit} of {limit}"
            for unit, limit in limits.items()
            if spent[unit] > limit + LATE.get(unit, 0.0)
        ]
    for account, book in result["accounts"].items():
        for unit, amount in book.items():
            seen = run.accounts.get(account, {}).get(unit, 0.0)
            if not math.isclose(seen, amount, rel_tol=1e-9, abs_tol=1e-9):
                problems.append(f"account {account}: {amount} {unit} in the result, {seen} in the journal")
    for unit, amount in result["spent"].items():
        held = math.fsum(book.get(unit, 0.0) for book in result["accounts"].values())
        if not math.isclose(held, amount, rel_tol=1e-9):
            problems.append(f"the accounts hold {held} {unit} and {amount} were spent")
    for unit, entry in result["budget"].items():
        if entry["spent"] > entry["limit"] + LATE.get(unit, 0.0) or entry["limit"] != limits[unit]:
            problems.append(f"{entry['spent']} {unit} spent of {entry['limit']}")
    return problems


# ---- parts of a run's own making ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class At:
    """A schedule that is 1 at some values of progress and 0 elsewhere; with a budget of n steps, step k reads progress (k - 1) / n."""

    points: tuple[float, ...]

    def value(self, progress: float) -> float:
        """1 at the points."""
        return float(any(math.isclose(progress, point, abs_tol=1e-12) for point in self.points))


@dataclass(frozen=True)
class Poisoned:
    """Classification whose loss is not a number wherever the knob ``poison`` is not 0."""

    knobs: ClassVar[dict[str, float]] = {"label_smoothing": 0.0, "poison": 0.0}

    inner: Classification = field(default_factory=Classification)

    def weight(self, batch: Batch) -> float:
        """The number of examples."""
        return self.inner.weight(batch)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The inner loss, or what is no number."""
        loss, measures = self.inner(model, batch, knobs)
        return (loss * math.nan, measures) if knobs.get("poison") else (loss, measures)


@dataclass(frozen=True)
class Paced:
    """Classification whose passes take ``seconds`` an example on a simulated clock, give or take ``noise``."""

    knobs: ClassVar[dict[str, float]] = {"label_smoothing": 0.0}

    clock: FakeClock
    seconds: float
    noise: float = 0.2
    inner: Classification = field(default_factory=Classification)

    def weight(self, batch: Batch) -> float:
        """The number of examples."""
        return self.inner.weight(batch)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The inner loss, after the time of a pass."""
        factor = 1 + self.noise * (2 * rng.numpy_generator(0, "pace", self.clock.advances).random() - 1)
        self.clock.advance(self.seconds * len(batch["labels"]) * factor)
        return self.inner(model, batch, knobs)


def paced(recipe: Recipe, clock: FakeClock, seconds: float, noise: float = 0.2) -> Recipe:
    """The recipe with steps and evaluations that take time on a simulated clock; those of the evaluations do not vary."""
    even = Paced(clock, seconds, 0.0)
    exams = tuple(dataclasses.replace(exam, objective=even) for exam in recipe.evaluate.exams)  # type: ignore[type-var]
    recipe = with_objective(recipe, Paced(clock, seconds, noise))
    return dataclasses.replace(recipe, evaluate=dataclasses.replace(recipe.evaluate, exams=exams))


# ---- children ----------------------------------------------------------------------------------------------------------------------


def child(work: Callable[[], object]) -> int:
    """Fork a child that does the work and ends with status 0, or 1 after an exception; return its process id.

    Forked from a process that has imported everything, it starts at once, and a kill may come at any instant of the work itself.
    """
    process = os.fork()
    if process:
        return process
    try:
        work()
        sys.stdout.flush()
        os._exit(0)
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    except BaseException as error:  # nothing may escape into the parent's code
        print(f"child: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def wait(process: int, seconds: float = 120.0) -> int:
    """Return how a child ended: its status, or minus the signal that killed it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, 9)
    os.waitpid(process, 0)
    raise AssertionError(f"the child did not end in {seconds} s")
