"""Pipeline: several runs under one budget, each of which may begin with what earlier ones left."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from outlay.budget import Budget, format_amount
from outlay.catalog import build_dataclass, describe
from outlay.errors import InputError, MissingExtra, OutlayError, Problem, nearest
from outlay.reporting.read import read_run
from outlay.reporting.terminal import Display
from outlay.train.answers import FILE, UNITS, Answers, write_answers
from outlay.train.finishing import MODEL
from outlay.train.journal import NAME as JOURNAL
from outlay.train.journal import how_ended, read_journal
from outlay.train.reading import read_asked
from outlay.train.recipe import ALWAYS_SPENT, Recipe, Stage
from outlay.train.result import FAILED, SPENT, STOPPED, Result
from outlay.train.result import NAME as RESULT
from outlay.train.run import resume, run
from outlay.train.signals import Signals

ASKED, STATE, LOCK = "pipeline.yaml", "pipeline.json", "pipeline.lock"
#: what a pipeline does between its legs, in its accounts beside theirs
OWN = "pipeline"
#: seconds kept back for that, and the largest share of what is left that this may be
OWN_SECONDS, OWN_SHARE = 0.05, 0.01
#: ``$teacher`` is the folder of the model that the leg teacher exported, ``$asked.file`` the file that the leg asked wrote
_STANDS = re.compile(r"\$([A-Za-z][\w-]*)(\.file)?")
_NAME = re.compile(r"[A-Za-z][\w-]*")


class PipelineFailed(OutlayError):
    """A leg could not be begun or left nothing to go on with. What was spent is on the books; the same call goes on with that leg."""


@dataclass(frozen=True)
class Leg:
    """One run of a pipeline: a recipe, or answers of a model. Exactly one of the two is given, as plain values.

    In them the text ``$name`` stands for the folder of the model that the leg of that name exported, and ``$name.file`` for the file that a leg of
    answers wrote; both must come earlier.

    Args:
        name: unique within the pipeline; names the leg's folder.
        share: part of the budget relative to the other legs', > 0; what a leg leaves rolls over to those after it.
        recipe: the recipe's plain values, without ``budget``; ``name`` and ``seed`` are the leg's and the pipeline's unless given.
        answers: fields of ``outlay.train.answers.Answers``; ``seed`` is the pipeline's unless given.
    """

    name: str
    share: float = 1.0
    recipe: dict[str, Any] | None = None
    answers: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        problems = []
        if not _NAME.fullmatch(self.name) or self.name == OWN:
            problems.append(Problem("name", f"is letters, digits, - and _, a letter first, and not {OWN!r}; found {self.name!r}"))
        if not (self.share > 0 and math.isfinite(self.share)):
            problems.append(Problem("share", f"must be a finite number > 0, found {self.share}"))
        if (self.recipe is None) == (self.answers is None):
            found = "neither" if self.recipe is None else "both"
            problems.append(Problem("", f"a leg has either a recipe or answers, found {found}"))
        if self.recipe is not None and "budget" in self.recipe:
            problems.append(Problem("recipe.budget", "a leg's budget is its share of the pipeline's; leave it out"))
        if problems:
            raise InputError(problems)

    @property
    def kind(self) -> str:
        """``recipe`` or ``answers``."""
        return "answers" if self.recipe is None else "recipe"

    @property
    def plain(self) -> dict[str, Any]:
        """The plain values of either."""
        return (self.answers if self.recipe is None else self.recipe) or {}


@dataclass(frozen=True)
class Pipeline:
    """Several runs under one budget.

    Every limited unit is divided by the legs' shares, among the legs that spend it, and divided anew when a leg begins: what those before it left
    rolls over. Labels are bought and not spent over time, so that they are not divided: a leg may buy all that are left. Ceilings hold for
    every leg.

    Args:
        budget: what may be spent in all, as a ``Budget`` or as text.
        legs: one or more, spent in order.
        name: names the folder.
        seed: root of all random streams, >= 0, for legs that have no seed of their own.
    """

    budget: Budget
    legs: tuple[Leg, ...]
    name: str = "pipeline"
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.budget, str):
            object.__setattr__(self, "budget", Budget.parse(self.budget))
        object.__setattr__(self, "legs", tuple(self.legs))
        problems = [*self._shape_problems(), *self._reference_problems()]
        if not problems:
            for number, leg in enumerate(self.legs):
                _build(self, leg, Path(), _NOMINAL, f"legs[{number}].{leg.kind}", problems)
        if not problems:
            problems += self._budget_problems()
        if problems:
            raise InputError(problems)

    def _shape_problems(self) -> list[Problem]:
        problems = []
        if not self.name or any(sign in self.name for sign in "/\\\0") or self.name.startswith("."):
            problems.append(Problem("name", f"names a directory, so it must not be empty, start with '.' or hold '/', found {self.name!r}"))
        if not self.legs:
            problems.append(Problem("legs", "a pipeline needs at least one leg, found none"))
        names = [leg.name for leg in self.legs]
        for name in sorted({name for name in names if names.count(name) > 1}):
            problems.append(Problem("legs", f"the leg name {name!r} is used {names.count(name)} times; names must differ"))
        if self.seed < 0:
            problems.append(Problem("seed", f"must be >= 0, found {self.seed}"))
        return problems

    def _reference_problems(self) -> list[Problem]:
        kinds = {leg.name: leg.kind for leg in self.legs}
        problems, earlier = [], set[str]()
        for number, leg in enumerate(self.legs):
            for where, name, file in _references(leg.plain, f"legs[{number}].{leg.kind}"):
                if name not in kinds:
                    problems.append(Problem(where, f"${name} stands for no leg{nearest(name, kinds)}"))
                elif name not in earlier:
                    told = "is this very leg" if name == leg.name else "comes later"
                    problems.append(Problem(where, f"the leg {name!r} {told}; a leg can begin with what earlier ones left"))
                elif file and kinds[name] == "recipe":
                    problems.append(
                        Problem(where, f"the leg {name!r} is a recipe and leaves a model, ${name}; files come from legs of answers")
                    )
                elif not file and kinds[name] == "answers":
                    problems.append(
                        Problem(where, f"the leg {name!r} is one of answers and leaves a file, ${name}.file; models come from recipes")
                    )
            earlier.add(leg.name)
        return problems

    def _budget_problems(self) -> list[Problem]:
        limits = set(self.budget.limits) - {"labels"}
        if not limits:
            return [Problem("budget", "limits nothing that is used up, so the run would never end; add a time or a count, such as '30m'")]
        problems = []
        spends = {leg.name: self.spends(leg) for leg in self.legs}
        for unit in self.budget.limits:
            if not any(unit in each for each in spends.values()):
                problems.append(Problem("budget", f"limits {unit}, but no leg spends any"))
        for number, leg in enumerate(self.legs):
            if leg.kind == "recipe" and not limits & spends[leg.name]:
                named = ", ".join(sorted(limits))
                problems.append(
                    Problem(f"legs[{number}]", f"spends no {named}, so that it would never end; limit something that every recipe spends")
                )
        if not problems:
            try:
                self.part(0, dict.fromkeys(self.budget.limits, 0.0))
            except InputError as error:
                problems += [Problem("budget", problem.message) for problem in error.problems]
        return problems

    def spends(self, leg: Leg) -> frozenset[str]:
        """Return the units that a leg spends."""
        if leg.kind == "answers":
            units = set(UNITS)
        else:
            stages: Sequence[Stage] = _build(self, leg, Path(), _NOMINAL, "", []).stages
            units = {*ALWAYS_SPENT, *(unit for stage in stages for unit in stage.source.units)} - {"labels"}
            units |= {"labels"} if any(_buys_labels(stage) for stage in stages) else set()
        price = self.budget.price
        return frozenset(units - ({"usd"} if price and price.per not in units else set()))

    def part(self, number: int, spent: Mapping[str, float]) -> Budget:
        """Return the budget of a leg when so much of every limited unit has been spent before it.

        Raises:
            InputError: when a unit that the leg spends is used up, or there are fewer whole units than legs to come.
        """
        leg, to_come = self.legs[number], self.legs[number:]
        limits = {}
        for unit, limit in self.budget.limits.items():
            if unit not in self.spends(leg):
                continue
            left = limit - spent.get(unit, 0.0)
            if unit == "seconds":
                left -= min(OWN_SECONDS * len(to_come), OWN_SHARE * left)
            if left <= 0:
                raise InputError(f"nothing is left of the {format_amount(unit, limit)} for the leg {leg.name!r}")
            shares = [other.share for other in to_come if unit in self.spends(other)]
            price = self.budget.price if unit == "usd" else None
            limits[unit] = left if unit == "labels" else Budget({unit: left}, price=price).split(shares)[0].limits[unit]
        return Budget(limits, self.budget.ceilings, self.budget.price if "usd" in limits else None)


def _buys_labels(stage: Stage) -> bool:
    acts = "rollouts" in stage.source.units
    return "labels" in stage.source.units and (not acts or bool(getattr(stage.objective, "needs_demonstrations", False)))


#: stands in for a leg's budget until it is known
_NOMINAL = Budget({"steps": 1.0})


def _references(plain: Any, where: str) -> Iterator[tuple[str, str, bool]]:
    """Yield (path, name of a leg, whether its file is meant) of everything in plain values that stands for what a leg left."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            yield from _references(value, f"{where}.{key}")
    elif isinstance(plain, list | tuple):
        for i, value in enumerate(plain):
            yield from _references(value, f"{where}[{i}]")
    elif isinstance(plain, str) and (found := _STANDS.fullmatch(plain)):
        yield where, found[1], bool(found[2])


def _filled(plain: Any, folder: Path) -> Any:
    """Return plain values with the paths that stand for what legs left in the pipeline's folder."""
    if isinstance(plain, Mapping):
        return {key: _filled(value, folder) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_filled(value, folder) for value in plain]
    if isinstance(plain, str) and (found := _STANDS.fullmatch(plain)):
        return str(folder / found[1] / (FILE if found[2] else MODEL))
    return plain


def _build(pipeline: Pipeline, leg: Leg, folder: Path, budget: Budget, where: str, problems: list[Problem]) -> Any:
    """Return a leg's ``Recipe`` or ``Answers``; what is wrong is added to ``problems`` and None returned."""
    plain = {"seed": pipeline.seed, **_filled(leg.plain, folder)}
    if leg.kind == "answers":
        return build_dataclass(Answers, plain, where, problems)
    return build_dataclass(Recipe, {"name": leg.name, **plain, "budget": budget}, where, problems)


def load_pipeline(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), budget: str | None = None) -> Pipeline:
    """Read a pipeline from a YAML file, from the name of a bundled one, or from plain values; arguments as of ``load_recipe``.

    Raises:
        InputError: with every problem found, each with its path and line.
    """
    asked = read_asked(source, overrides, budget)
    made = build_dataclass(Pipeline, asked.plain, "", asked.problems)
    if asked.problems or made is None:
        raise asked.error()
    return made  # type: ignore[no-any-return]


def dump_pipeline(pipeline: Pipeline) -> str:
    """Return the pipeline as YAML from which ``load_pipeline`` makes the same one."""
    plain = describe(pipeline)
    for leg in plain["legs"]:
        leg.pop("recipe" if leg["recipe"] is None else "answers")
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)


# ---- running ---------------------------------------------------------------------------------------------------------------------------


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
        built = _build(self.pipeline, leg, self.folder, budget, "", problems)
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


__all__ = ["Leg", "Pipeline", "PipelineFailed", "PipelineResult", "dump_pipeline", "load_pipeline", "resume_pipeline", "run_pipeline"]
