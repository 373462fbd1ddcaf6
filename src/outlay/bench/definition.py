"""What a bench is: workloads x methods x budgets x seeds, and the search that every method gets for its peak."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from outlay.budget import Budget
from outlay.catalog import build_dataclass
from outlay.errors import InputError, Problem, nearest
from outlay.schedules.base import Schedule

HERE = Path(str(resources.files("outlay") / "bench"))


@dataclass(frozen=True)
class Workload:
    """A recipe that is trained again and again, and how its end is judged.

    Args:
        recipe: the recipe's plain values without budget, seed and the tuned knob's peak and schedule.
        full: the whole budget; shares of it are what methods are given. One limit that is used up.
        metric: what is reported, a metric of the recipe's exams on examples that nothing is tuned on; several joined by `` + `` are averaged.
        tune_on: what the search looks at, a metric (or several) on other held-out examples.
        better: whether a small or a large metric is good.
        peaks: smallest and largest peak that the search tries, > 0.
        about: one sentence for tables.
        knob: the tuned knob.
        stages: numbers of the stages whose knob is tuned, from 0; empty for all of them.
        name: as files and tables call it.
        shares: shares of the full budget that make sense here; empty for all of the bench's.
        methods: methods that are compared here; empty for all of the bench's.
        tries: tries of the search where they must be fewer than the bench's.
    """

    recipe: dict[str, Any]
    full: Budget
    metric: str
    tune_on: str
    better: Literal["lower", "higher"]
    peaks: tuple[float, float]
    about: str = ""
    knob: str = "lr"
    stages: tuple[int, ...] = ()
    name: str = ""
    shares: tuple[float, ...] = ()
    methods: tuple[str, ...] = ()
    tries: int | None = None

    def __post_init__(self) -> None:
        if len(self.full.limits) != 1:
            raise ValueError(f"full must limit one unit that is used up, found {self.full}")
        for key in ("budget", "seed"):
            if key in self.recipe:
                raise ValueError(f"the recipe of a workload holds no {key}, which the bench sets; found {self.recipe[key]!r}")
        if not self.recipe.get("stages"):
            raise ValueError("the recipe of a workload needs stages")
        if not 0 < self.peaks[0] <= self.peaks[1] < math.inf:
            raise ValueError(f"peaks must read (smallest, largest), both > 0, found {self.peaks}")

    @property
    def sign(self) -> float:
        """1 where small is good and -1 where large is good: sign * metric is a loss."""
        return 1.0 if self.better == "lower" else -1.0

    def measure(self, metrics: Mapping[str, float], which: str) -> float:
        """Return ``metric`` or ``tune_on`` out of a run's metrics; not a number where one is missing."""
        values = [metrics.get(name, math.nan) for name in which.split(" + ")]
        return math.fsum(values) / len(values)

    def absent(self, metrics: Mapping[str, float]) -> str:
        """Return the names that ``metric`` and ``tune_on`` ask for and ``metrics`` does not hold, as a list in a sentence."""
        asked = dict.fromkeys(name for which in (self.metric, self.tune_on) for name in which.split(" + "))
        return ", ".join(name for name in asked if name not in metrics)

    def budget(self, share: float) -> Budget:
        """Return that share of the full budget; whole for counted units, and at least one."""
        unit, amount = next(iter(self.full.limits.items()))
        part = amount * share if unit in ("seconds", "flops", "usd") else max(1.0, round(amount * share))
        return Budget({unit: part}, self.full.ceilings, self.full.price)


@dataclass(frozen=True)
class Method:
    """What a contender changes in a workload's recipe.

    Args:
        schedule: the tuned knob's schedule or controller; None leaves it constant.
        set: further changes, path -> plain value, such as ``{"stages[0].optimizer": prodigy}``; the text ``$peak`` in a value stands for the
            peak that is tried.
        peak_times: the search's range is the workload's times this, > 0; for methods whose peak is measured otherwise.
        peaks: the search's range itself; None for the workload's.
        program: ``run`` spends the recipe once; ``refined`` spends half of the budget on a linear decay whose gradient norms are logged, and
            the other half on the schedule that follows from them.
        order: for ``refined``, the power of the gradient norms: 2, with L2 norms, for SGD; 1, with L1 norms, for Adam and its kin.
        about: one sentence for tables.
    """

    schedule: Schedule | None = None
    set: dict[str, Any] = field(default_factory=dict)
    peak_times: float = 1.0
    peaks: tuple[float, float] | None = None
    program: Literal["run", "refined"] = "run"
    order: Literal[1, 2] = 2
    about: str = ""

    def range(self, workload: Workload) -> tuple[float, float]:
        """Return the smallest and the largest peak that the search tries on a workload."""
        low, high = self.peaks or workload.peaks
        return low * self.peak_times, high * self.peak_times


@dataclass(frozen=True)
class Search:
    """How a method's peak is found on a workload: the same number of tries for everybody, at the same share of the budget.

    Args:
        tries: peaks that are tried, log-spaced over the range, >= 1.
        share: budget of a try as a share of the full one, in (0, 1].
        seed: of the tries; none of the measured seeds, which count from 0.
    """

    tries: int = 5
    share: float = 0.25
    seed: int = 1000

    def __post_init__(self) -> None:
        if self.tries < 1 or not 0 < self.share <= 1:
            raise ValueError(f"tries must be >= 1 and share in (0, 1], found {self.tries} and {self.share}")

    def peaks(self, low: float, high: float, tries: int) -> list[float]:
        """Return the peaks, from the smallest."""
        if tries == 1 or low == high:
            return [math.sqrt(low * high)]
        return [float(f"{low * (high / low) ** (i / (tries - 1)):.4g}") for i in range(tries)]


@dataclass(frozen=True)
class Target:
    """The quality to be reached on each workload: the median over seeds of a method at a share of the budget."""

    method: str = "linear"
    share: float = 0.5


@dataclass(frozen=True)
class Bench:
    """A comparison at equal budget.

    Args:
        workloads: names of workloads (bundled, or files beside the bench).
        methods: name -> what it changes.
        shares: budgets, as shares of each workload's full one, rising.
        seeds: how many, >= 1; the same ones for every method.
        search: how peaks are found.
        baseline: the method that differences are taken against.
        target: for time to target; None leaves it out.
        name: as the results call it.
        title: a line for reports.
    """

    workloads: tuple[str, ...]
    methods: dict[str, Method]
    shares: tuple[float, ...]
    seeds: int = 3
    search: Search = field(default_factory=Search)
    baseline: str = "linear"
    target: Target | None = None
    name: str = "bench"
    title: str = ""

    def __post_init__(self) -> None:
        problems = []
        if not all(0 < share <= 1 for share in self.shares) or list(self.shares) != sorted(set(self.shares)):
            problems.append(Problem("shares", f"must rise within (0, 1], found {self.shares}"))
        if self.seeds < 1:
            problems.append(Problem("seeds", f"must be >= 1, found {self.seeds}"))
        for where, name in (("baseline", self.baseline), ("target", self.target.method if self.target else self.baseline)):
            if name not in self.methods:
                problems.append(Problem(where, f"there is no method {name!r} in this bench{nearest(name, self.methods)}"))
        if problems:
            raise InputError(problems)


def bundled(kind: Literal["benches", "workloads"]) -> dict[str, Path]:
    """Return what comes with outlay: name -> file."""
    return {path.stem: path for path in sorted((HERE / kind).glob("*.yaml"))}


def load_bench(name: str | Path) -> Bench:
    """Read a bench from a file, or one that comes with outlay by name.

    Raises:
        InputError: with every problem found.
    """
    path = find(name, "benches")
    bench: Bench = _built(Bench, path)
    for workload in bench.workloads:
        load_workload(workload, near=path.parent)
    return bench


def load_workload(name: str, near: Path | None = None) -> Workload:
    """Read a workload by the name of a bundled one, or from a file (also beside ``near``).

    Raises:
        InputError: with every problem found.
    """
    beside = near / f"{name}.yaml" if near else None
    path = beside if beside is not None and beside.is_file() else find(name, "workloads")
    workload: Workload = _built(Workload, path)
    return workload


def find(name: str | Path, kind: Literal["benches", "workloads"]) -> Path:
    """Return the file of a bench or workload given as a path or as a bundled name."""
    if Path(name).is_file():
        return Path(name)
    known = bundled(kind)
    if str(name) not in known:
        raise InputError(f"there is no file {str(name)!r} and none of the bundled {kind} is called so{nearest(str(name), known)}")
    return known[str(name)]


def read_plain(path: Path) -> dict[str, Any]:
    """Read a YAML mapping."""
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", str(path)) from error
    if not isinstance(plain, dict):
        raise InputError(f"expected a mapping, found {type(plain).__name__}", str(path))
    return plain


def _built(cls: type, path: Path) -> Any:
    plain = {"name": path.stem, **read_plain(path)}
    problems: list[Problem] = []
    made = build_dataclass(cls, plain, "", problems)
    if problems or made is None:
        raise InputError(problems, str(path))
    return made


def names(things: Iterable[str]) -> str:
    """Return names as a list in a sentence."""
    return ", ".join(things)
