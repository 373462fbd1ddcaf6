"""Piping: a pipeline being spent, leg by leg."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from outlay.budget import Budget
from outlay.errors import InputError, MissingExtra, OutlayError, Problem
from outlay.reporting.read import read_run
from outlay.reporting.terminal import Display
from outlay.train.answers import write_answers
from outlay.train.finishing import MODEL
from outlay.train.journal import NAME as JOURNAL
from outlay.train.journal import how_ended, read_journal
from outlay.train.pipeline import ASKED, OWN, Leg, Pipeline, PipelineFailed, built_leg, dump_pipeline, load_pipeline
from outlay.train.result import FAILED, SPENT, STOPPED, Result
from outlay.train.result import NAME as RESULT
from outlay.train.run import resume, run
from outlay.train.signals import Signals

STATE, LOCK = "pipeline.json", "pipeline.lock"


@dataclass
class PipelineResult:
    """What a pipeline came to. Written to ``result.json``.

    Args:
        name: the pipeline's name.
        ended_by: what ended the last leg, ``signal`` or ``failure``.
        exit_code: 0 spent, 3 stopped by a signal, 4 failed.
        budget: unit -> {limit, spent} for every limited unit.
        spent: unit -> amount for every unit that was used.
        went: unit -> leg -> amount, with ``pipeline`` for seconds between legs; each sums to ``spent``.
        legs: of every leg that has begun: name, kind, share, whether it is done, ended_by, limits, spent, accounts, lost, metrics.
        metrics: of the last leg that measured any with exams.
        seed: root seed.
        message: why it failed; empty otherwise.
        folder: the pipeline's folder.
    """

    name: str
    ended_by: str
    exit_code: int
    budget: dict[str, dict[str, float]]
    spent: dict[str, float]
    went: dict[str, dict[str, float]]
    legs: list[dict[str, Any]]
    metrics: dict[str, float]
    seed: int
    message: str = ""
    folder: str = ""

    @property
    def model(self) -> Path:
        """The folder of the model that the last finished recipe exported."""
        name = next(leg["name"] for leg in reversed(self.legs) if leg["kind"] == "recipe" and leg["done"])
        return Path(self.folder) / name / MODEL


def run_pipeline(pipeline: Pipeline | str | Path, out: Path | str | None = None, *, display: Callable[[str], Display] | None = None,
                 began: float | None = None, clock: Callable[[], float] = time.monotonic) -> PipelineResult:  # fmt: skip
    """Spend a pipeline's budget leg by leg, or go on where a stopped or killed call on the same folder was.

    Finished legs are passed over, one that was stopped is resumed, and what they spent counts; a finished pipeline's result is returned as it is.

    Args:
        pipeline: a pipeline, or what ``load_pipeline`` reads.
        out: the folder, new or of this very pipeline; None for ``runs/<name>-<number>``. Each leg gets a folder of its name inside, which
            ``outlay report`` shows as any other run's.
        display: returns what a person sees of the leg of this name; None for nothing.
        began: reading of ``clock`` from which seconds count, when the process began earlier.
        clock: returns seconds.

    Raises:
        InputError: when pipeline, data or folder are wrong; nothing has been created then.
        RunFailed: when a run's numbers broke; what there is has been written.
        PipelineFailed: when a later leg could not begin, or left nothing to go on with.
    """
    pipeline = pipeline if isinstance(pipeline, Pipeline) else load_pipeline(pipeline)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError("a pipeline works in one process; run its legs one by one on several")
    folder, fresh = _folder(pipeline, out)
    with _held(folder), Signals() as signals:
        work = _Work(pipeline, folder, signals, display, clock, began)
        try:
            return work.run()
        except (InputError, MissingExtra):
            if fresh and work.state.untouched:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def resume_pipeline(folder: Path | str, *, display: Callable[[str], Display] | None = None, began: float | None = None) -> PipelineResult:
    """Go on with the pipeline in a folder; one with objects that YAML cannot hold is gone on with by ``run_pipeline`` instead.

    Raises:
        InputError: when the folder holds no pipeline.
    """
    path = Path(folder) / ASKED
    if not path.is_file():
        raise InputError(f"{folder} holds no pipeline: there is no {ASKED} in it")
    return run_pipeline(load_pipeline(path), folder, display=display, began=began)


def _folder(pipeline: Pipeline, out: Path | str | None) -> tuple[Path, bool]:
    """Return the pipeline's folder, the pipeline written into it, and whether it is new."""
    if out is None:
        numbers = (number for number in range(1, 1_000_000) if not Path("runs", f"{pipeline.name}-{number}").exists())
        out = Path("runs", f"{pipeline.name}-{next(numbers)}")
    folder, text = Path(out).absolute(), dump_pipeline(pipeline)
    asked = folder / ASKED
    if asked.is_file():
        if asked.read_text(encoding="utf-8") != text:
            raise InputError(f"{folder} holds another pipeline, or this one with other values; choose another folder")
        return folder, False
    # a kill may leave what was to be renamed
    strange = [path.name for path in folder.iterdir() if path.name not in (LOCK, f"{ASKED}.incomplete")] if folder.is_dir() else []
    if strange or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} exists and holds no pipeline; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write(asked, text)
    return folder, True


def _write(path: Path, text: str) -> None:
    """Write a file aside, put it on the disk and rename it."""
    aside = path.with_name(f"{path.name}.incomplete")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the pipeline, so that two processes never spend it."""
    with open(folder / LOCK, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another process is spending the pipeline in {folder}; wait for it or stop it") from None
        yield


@dataclass
class _State:
    """What is remembered between processes: of every leg that has begun its limits, and, once it is done, what it came to; and own seconds."""

    path: Path
    own: float = 0.0
    legs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _State:
        plain = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return cls(path, **plain)

    def write(self) -> None:
        _write(self.path, json.dumps({"own": self.own, "legs": self.legs}, indent=1))

    @property
    def untouched(self) -> bool:
        """Whether no leg has left anything."""
        return not any(
            (self.path.parent / name / "recipe.yaml").exists() or (self.path.parent / name / JOURNAL).exists() for name in self.legs
        )


class _Work:
    """One call of ``run_pipeline``."""

    def __init__(self, pipeline: Pipeline, folder: Path, signals: Signals, display: Callable[[str], Display] | None,
                 clock: Callable[[], float], began: float | None) -> None:  # fmt: skip
        self.pipeline, self.folder, self.signals, self.display, self.clock = pipeline, folder, signals, display, clock
        self.state = _State.read(folder / STATE)
        self._mark = clock() if began is None else began

    def run(self) -> PipelineResult:
        done = self.folder / RESULT
        if done.is_file() and all(self.state.legs.get(leg.name, {}).get("done") for leg in self.pipeline.legs):
            told = PipelineResult(**json.loads(done.read_text(encoding="utf-8")), folder=str(self.folder))
            if told.exit_code == SPENT:
                return told
        ended_by = ""
        for number, leg in enumerate(self.pipeline.legs):
            if self.state.legs.get(leg.name, {}).get("done"):
                continue
            if self.signals.stop:
                return self._finish("signal", STOPPED)
            try:
                ended_by = self._spend(number, leg)
            except OutlayError as error:
                first = number == 0 and isinstance(error, InputError | MissingExtra) and self.state.untouched
                if not first:
                    self._finish("failure", FAILED, f"leg {leg.name}: {error}")
                if first or not isinstance(error, InputError | PipelineFailed):
                    raise
                raise PipelineFailed(f"leg {leg.name}: {error}") from error
            if ended_by == "signal":
                return self._finish("signal", STOPPED)
        ended_by = ended_by or self.state.legs[self.pipeline.legs[-1].name]["ended_by"]
        return self._finish(ended_by, SPENT)

    def _spend(self, number: int, leg: Leg) -> str:
        """Spend a leg, or go on with it; return what ended it."""
        self._lap()
        known = self.state.legs.get(leg.name)
        if known is None:
            part = self.pipeline.part(number, self._spent())
            known = {"limits": dict(part.limits), "done": False}
            self.state.legs[leg.name] = known
        self.state.write()
        price = self.pipeline.budget.price if "usd" in known["limits"] else None
        budget = Budget(known["limits"], self.pipeline.budget.ceilings, price)
        folder = self.folder / leg.name
        before = _booked(folder).get("seconds", 0.0)
        try:
            result = self._result_of(folder) or self._go_on(leg, budget, folder)
        except BaseException:
            self._lap(booked=_booked(folder).get("seconds", 0.0) - before)
            raise
        known |= {
            "ended_by": result["ended_by"], "spent": result["spent"], "accounts": result["accounts"], "lost": result["lost"],
            "metrics": result["metrics"],
        }  # fmt: skip
        self._lap(booked=result["spent"].get("seconds", 0.0) - before)
        empty = leg.kind == "answers" and not result["metrics"]["rows"]
        known["done"] = not empty and result["ended_by"] not in ("signal", "failure")
        self.state.write()
        if empty and result["ended_by"] != "signal":
            asked = int(result["metrics"]["questions"])
            raise PipelineFailed(f"none of the answers to {asked} questions were kept, so nothing is left to go on with")
        return str(result["ended_by"])

    def _result_of(self, folder: Path) -> dict[str, Any] | None:
        """Return the result of a leg that had come to its end when this pipeline was killed; its journal may know of more than its result."""
        if not (folder / JOURNAL).is_file() or how_ended(read_journal(folder)) in (None, "signal", "failure"):
            return None
        told: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return told | {"spent": told["spent"] | _booked(folder)}

    def _go_on(self, leg: Leg, budget: Budget, folder: Path) -> dict[str, Any]:
        problems: list[Problem] = []
        built = built_leg(self.pipeline, leg, self.folder, budget, "", problems)
        if problems:
            raise InputError(problems)
        display = self.display(leg.name) if self.display else None
        began = self._mark
        if leg.kind == "answers":
            return asdict(write_answers(built, budget, folder, name=leg.name, display=display, began=began, clock=self.clock))
        if (folder / "recipe.yaml").is_file():
            result: Result = resume(folder, recipe=built, display=display, began=began, clock=self.clock)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # a kill came before the recipe was written
            result = run(built, folder, display=display, began=began, clock=self.clock)
        return asdict(result)

    # ---- books --------------------------------------------------------------------------------------------------------------------------

    def _lap(self, booked: float = 0.0) -> None:
        """Put the seconds since the last time on the pipeline's own account, but for those that a leg has booked."""
        now = self.clock()
        self.state.own += max(0.0, now - self._mark - booked)
        self._mark = now

    def _spent(self) -> dict[str, float]:
        """Return what has been spent by legs and between them, by unit."""
        return {unit: math.fsum(parts.values()) for unit, parts in self._went().items()}

    def _went(self) -> dict[str, dict[str, float]]:
        went: dict[str, dict[str, float]] = {unit: {} for unit in self.pipeline.budget.limits}
        for name, leg in self.state.legs.items():
            for unit, amount in (leg["spent"] if leg["done"] else _booked(self.folder / name)).items():
                went.setdefault(unit, {})[name] = amount
        went.setdefault("seconds", {})[OWN] = self.state.own
        price = self.pipeline.budget.price
        if price:  # of what it is priced by, whichever leg's limits hold it
            went["usd"] = {name: price.usd * amount for name, amount in went.get(price.per, {}).items()}
        return went

    def _finish(self, ended_by: str, code: int, message: str = "") -> PipelineResult:
        self._lap()
        self.state.write()
        pipeline, went, spent = self.pipeline, self._went(), self._spent()
        budget = {unit: {"limit": limit, "spent": spent[unit]} for unit, limit in pipeline.budget.limits.items()}
        kinds = {leg.name: leg for leg in pipeline.legs}
        legs = [{"name": name, "kind": kinds[name].kind, "share": kinds[name].share, **leg} for name, leg in self.state.legs.items()]
        metrics: dict[str, float] = next((leg["metrics"] for leg in reversed(legs) if leg["kind"] == "recipe" and leg.get("metrics")), {})
        result = PipelineResult(pipeline.name, ended_by, code, budget, spent, went, legs, metrics, pipeline.seed, message, str(self.folder))
        plain = asdict(result)
        plain.pop("folder")
        _write(self.folder / RESULT, json.dumps(plain, indent=1))
        return result


def _booked(folder: Path) -> dict[str, float]:
    """Return what a leg's journal has on its books, by unit; nothing of one that has not begun."""
    try:
        return dict(read_run(folder).spent)
    except InputError:
        return {}


__all__ = ["PipelineResult", "resume_pipeline", "run_pipeline"]
