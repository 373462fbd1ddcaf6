"""Pace: whether there is another step, and at which progress. Live it comes from the meter; in a replay, from the journal."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from outlay.branch import Branch
from outlay.budget import Budget
from outlay.meter import Meter
from outlay.train.underway import ROUNDING

#: part of the reserve while the run is on a branch: going back to where it left
PUT_BACK = "put back"


@dataclass(frozen=True)
class Go:
    """Leave for one step.

    Args:
        progress: share of the stage's budget that has been spent, in [0, 1].
        save: whether to save the run before the step.
        stop: whether to end the run in good order instead (a signal came).
    """

    progress: float
    save: bool = False
    stop: bool = False


class Pace(Protocol):
    """Decides step by step how far a stage has come and when it has ended; ``ended_by`` then says which unit's limit it was."""

    ended_by: str | None

    @property
    def progress(self) -> float:
        """Share of the stage's budget that had been spent when leave was last asked for."""
        ...

    def begin(self, save: bool, stop: bool, paid: Collection[str] = ()) -> Go | None:
        """Return leave for the next step, or None when the stage has ended; ``save`` and ``stop`` are this process's wishes, and ``paid`` names
        units of which the next step needs no more, so that having none left does not end the stage."""
        ...

    def fits(self, cost: Mapping[str, float]) -> bool:
        """Return whether a step of this cost in counted units stays within the stage's limits."""
        ...

    def leaves(self, cost: Mapping[str, float], seconds: float, place: int, call: int) -> bool:
        """Return whether there is leave for a further piece of generation.

        Args:
            cost: what it takes in counted units, with what must stay for the update to come.
            seconds: expected from the end of the generation to that of the update.
            place: number of the first question that is being answered.
            call: number of this asking within the generation, from 0.
        """
        ...

    def evaluates(self) -> bool:
        """Return whether an evaluation can be paid now beside the one that is reserved for the end."""
        ...

    def bears(self, branch: Branch, cost: Mapping[str, float]) -> bool:
        """Return whether the budget bears a branch whose steps cost this much in counted units, and what it leaves."""
        ...

    def turned(self) -> None:
        """Tell that a branch was refused, has begun or has ended."""
        ...

    def lap(self) -> None:
        """Tell that a step has ended."""
        ...

    def seconds_left(self) -> float | None:
        """Return the seconds that are expected until the stage ends; None when that is not known."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed stage needs to go on at the same progress."""
        ...


@dataclass
class Reserve:
    """What must be left to finish cleanly: the last evaluation, checkpoint, export and report.

    Args:
        counted: unit -> amount, the most that the last evaluation can use; exact, known in advance.
        seconds: part -> expected seconds, revised whenever the part has been measured.
    """

    counted: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    #: how much longer than expected the parts may take before the budget is overrun
    margin: float = 1.05
    #: share of a limit in seconds that the run may leave unspent; a live pace aims at the middle of it
    slack: float = 0.005
    _measured: dict[str, list[float]] = field(default_factory=dict)

    def amount(self, unit: str) -> float:
        """Return what is reserved of a unit."""
        return self.margin * math.fsum(self.seconds.values()) if unit == "seconds" else self.counted.get(unit, 0.0)

    def measured(self, part: str, seconds: float) -> None:
        """Take in how long a part took; expected is the mean of the last four, without the first, which pays for warming up, plus twice
        their standard deviation beyond what ``margin`` covers."""
        times = self._measured.setdefault(part, [])
        times.append(seconds)
        recent = times[1:][-4:] or times
        mean = math.fsum(recent) / len(recent)
        unsteady = 2 * statistics.stdev(recent) if len(recent) > 1 else 0.0
        self.seconds[part] = max(mean, (mean + unsteady) / self.margin)


def flow_limits(budget: Budget) -> dict[str, float]:
    """Return the limits with money turned into the unit it is priced by, since that is what steps are weighed in."""
    limits = {unit: amount for unit, amount in budget.limits.items() if unit != "usd"}
    if "usd" in budget.limits and budget.price:
        bought = budget.limits["usd"] / budget.price.usd
        limits[budget.price.per] = min(bought, limits.get(budget.price.per, math.inf))
    return limits


def affords_evaluation(meter: Meter, reserve: Reserve) -> bool:
    """Return whether one more evaluation fits into what is neither spent nor reserved, as far as its cost is known."""
    needed = {**reserve.counted, "seconds": reserve.margin * reserve.seconds.get("evaluation", 0.0)}
    limits = flow_limits(meter.budget)
    return all(meter.spent(unit) + needed.get(unit, 0.0) + reserve.amount(unit) <= limit for unit, limit in limits.items())


def ending_unit(budget: Budget, unit: str) -> str:
    """Return the declared unit behind a flow limit: ``usd`` where money was the tighter one."""
    if "usd" in budget.limits and budget.price and budget.price.per == unit:
        bought = budget.limits["usd"] / budget.price.usd
        return "usd" if bought <= budget.limits.get(unit, math.inf) else unit
    return unit


@dataclass
class Tail:
    """How long it takes from the end of a generation to that of the first update on it."""

    began: float | None = None
    took: list[float] = field(default_factory=list)

    def expected(self) -> float:
        """Return the slowest of the last few, those left out that took over twice their median; 0 before the first."""
        recent = self.took[-20:]
        usual = [seconds for seconds in recent if seconds <= 2 * statistics.median(recent)]
        return max(usual, default=0.0)

    def ended(self, now: float) -> None:
        """Tell that an update has ended."""
        if self.began is not None:
            self.took.append(now - self.began)
        self.began = None


class LivePace:
    """The pace of a run that is being spent.

    Progress is the largest spent share over the limited units, each from what had been spent when the stage began to the stage's end:
    p = max_u (spent_u - from_u) / (to_u - from_u), never falling. In seconds a step fits if the slowest of the recent ones would.

    Args:
        meter: the books.
        starts: unit -> total spent when the stage began.
        share: this stage's part of what is left for it and the stages after it, in (0, 1].
        reserve: what must stay for the end of the run; read every step, so that revisions count.
        agree: returns the first process's values on every process.
        bought: units that the stage pays for when it begins and no step spends; they tell nothing of how far it has come.
    """

    #: recent steps that a step's seconds are forecast from
    WINDOW = 200

    def __init__(self, meter: Meter, starts: Mapping[str, float], share: float, reserve: Reserve,
                 agree: Callable[[list[float]], list[float]] = list, bought: Collection[str] = ()) -> None:  # fmt: skip
        self._meter, self._share, self._reserve, self._agree = meter, share, reserve, agree
        self._limits = {unit: limit for unit, limit in flow_limits(meter.budget).items() if unit not in bought}
        self._starts = {unit: starts.get(unit, 0.0) for unit in self._limits}
        self._recent: deque[float] = deque(maxlen=self.WINDOW)
        self._began: float | None = None
        self._progress = 0.0
        self.ended_by: str | None = None

    def ends(self) -> dict[str, float]:
        """Return unit -> total spent at which the stage ends."""
        ends = {}
        for unit, limit in self._limits.items():
            kept = self._reserve.amount(unit) + (self._slack(limit) if unit == "seconds" else 0.0)
            share = self._share * max(0.0, limit - kept - self._starts[unit])
            ends[unit] = self._starts[unit] + (share if unit in ("seconds", "flops") else math.floor(share))
        return ends

    def _slack(self, limit: float) -> float:
        """Return seconds to aim short of the limit for what no measurement foretells (a slow sync, a process put aside for a moment): the
        middle between the limit and what a run may leave, as far as steps are shorter than that."""
        return max(0.0, self._reserve.slack * limit - self.forecast()) / 2

    def expect(self, seconds: float) -> None:
        """Give a forecast of a step's seconds before any has been measured."""
        self._recent.append(seconds)

    def lap(self) -> None:
        """Tell that the step begun last has ended; an evaluation or a save is no part of it."""
        now = self._meter.spent("seconds")
        if self._began is not None:
            self._recent.append(now - self._began)
        self._began = None

    def forecast(self) -> float:
        """Return how long the next step may take: the slowest recent one, those left out that took over twice the median, so that a stall or
        a first step does not count.

        The next may be slower than the slowest of n; evenly spread times exceed it by more than 5 range / n in one step of e^5 n.
        """
        if not self._recent:
            return 0.0
        ordered = sorted(self._recent)
        usual = [seconds for seconds in ordered if seconds <= 2 * ordered[len(ordered) // 2]]
        return usual[-1] + 5 * (usual[-1] - usual[0]) / len(usual)

    def seconds_left(self) -> float | None:
        """Return the seconds until the stage ends if seconds are limited, else a guess from progress; None before the first step."""
        ends = self.ends()
        if "seconds" in ends:
            return max(0.0, ends["seconds"] - self._meter.spent("seconds"))
        used = self._meter.spent("seconds") - self._starts.get("seconds", 0.0)
        return used * (1 - self._progress) / self._progress if self._progress > 0.01 else None

    def begin(self, save: bool, stop: bool, paid: Collection[str] = ()) -> Go | None:
        """Return leave for the next step, as the first process sees it."""
        self._began = self._meter.spent("seconds")
        ends = self.ends()
        shares = {unit: self._passed(unit, end) for unit, end in ends.items()}
        progress = max(self._progress, min(1.0, max(shares.values())))
        over = [unit for unit, end in ends.items() if self._meter.spent(unit) >= end and unit not in paid]
        if "seconds" in ends and self._began + self.forecast() > ends["seconds"]:
            over.append("seconds")
        verdict = self._agree([progress, float(save), float(stop), float(self._index(over))])
        self._progress = verdict[0]
        if verdict[3] >= 0:
            self.ended_by = list(self._limits)[int(verdict[3])]
            return None
        return Go(verdict[0], bool(verdict[1]), bool(verdict[2]))

    def fits(self, cost: Mapping[str, float]) -> bool:
        """Return whether a step of this cost stays within the stage's counted limits."""
        for unit, end in self.ends().items():
            if unit != "seconds" and self._meter.spent(unit) + cost.get(unit, 0.0) > end:
                self.ended_by = unit
                return False
        return True

    def leaves(self, cost: Mapping[str, float], seconds: float, place: int, call: int) -> bool:
        """Return whether the piece and what follows it stay within the stage's limits."""
        for unit, end in self.ends().items():
            if self._meter.spent(unit) + (seconds if unit == "seconds" else cost.get(unit, 0.0)) > end:
                self.ended_by = unit
                return False
        return True

    @property
    def progress(self) -> float:
        """Share of the stage's budget that had been spent when leave was last asked for."""
        return self._progress

    def bears(self, branch: Branch, cost: Mapping[str, float]) -> bool:
        """Return whether the branch, its evaluation and export, going back, and what it leaves fit into the stage, as the first process sees
        it. Seconds are as forecast: a branch that turns out longer is cut."""
        fits = all(self._bears(branch, unit, end, cost) for unit, end in self.ends().items())
        return bool(self._agree([float(fits)])[0])

    def _bears(self, branch: Branch, unit: str, end: float, cost: Mapping[str, float]) -> bool:
        width = end - self._starts[unit]
        seconds = self._reserve.seconds
        if branch.steps is not None:
            length = (branch.steps + branch.leaves) * (self.forecast() if unit == "seconds" else cost.get(unit, 0.0))
        else:
            length = ((branch.share or 0.0) + branch.leaves) * width
        if unit == "seconds":
            # remembering the fork and going back are each at most what a checkpoint takes
            parts = [("checkpoint", 2.0), ("evaluation", float(branch.evaluate)), ("export", float(branch.save))]
            extra = self._reserve.margin * math.fsum(times * seconds.get(part, 0.0) for part, times in parts)
        else:
            extra = self._reserve.counted.get(unit, 0.0) if branch.evaluate else 0.0
        return self._meter.spent(unit) + length + extra <= end + ROUNDING * max(1.0, abs(end))

    def turned(self) -> None:
        """Nothing follows from it: time and money tell."""

    def evaluates(self) -> bool:
        """Return whether an evaluation can be paid now beside the one that is reserved for the end, as the first process sees it."""
        return bool(self._agree([float(affords_evaluation(self._meter, self._reserve))])[0])

    def _passed(self, unit: str, end: float) -> float:
        width = end - self._starts[unit]
        return (self._meter.spent(unit) - self._starts[unit]) / width if width > 0 else 1.0

    def _index(self, over: list[str]) -> int:
        return list(self._limits).index(over[0]) if over else -1

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed stage needs to go on at the same progress."""
        return {"starts": self._starts, "progress": self._progress, "recent": list(self._recent)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved stage."""
        self._starts = {unit: state["starts"].get(unit, 0.0) for unit in self._limits}
        self._progress = state["progress"]
        self._recent.extend(state["recent"])
