"""What a line about a running run tells, in steady columns."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping

from outlay.budget import BOUGHT, Budget
from outlay.record import Record
from outlay.reporting.format import compact, duration, number, quantity, title

#: most knobs on one line
KNOBS_SHOWN = 3


class Progress:
    """What the last step told, and how fast things go. Keeping it costs next to nothing; words are made only when they are shown.

    Args:
        budget: what may be spent.
        steps: how many steps are expected, if known.
        clock: returns seconds, never going back.
    """

    def __init__(self, budget: Budget, steps: int | None, clock: Callable[[], float]) -> None:
        self.limits: dict[str, float] = dict(budget.limits)
        self.steps_expected = steps
        self.clock = clock
        self.record: Record | None = None
        self.spent: Mapping[str, float] = {}
        self.share = 0.0
        self.seconds_left: float | None = None
        self._past: deque[tuple[float, int, float]] = deque()

    def start(self, budget: Budget, limits: Mapping[str, float] | None) -> None:
        """Take up the limits that ``left`` speaks of."""
        self.limits = {unit: limit for unit, limit in (budget.limits if limits is None else limits).items() if limit > 0}

    def take(self, record: Record, spent: Mapping[str, float], share: float, seconds_left: float | None) -> None:
        """Keep what a step told."""
        self.record, self.spent, self.share, self.seconds_left = record, spent, share, seconds_left
        if not self._past:
            self._past.append(self._sample())

    def _sample(self) -> tuple[float, int, float]:
        return self.clock(), self.record.step if self.record else 0, self.spent.get("tokens", 0.0)

    def rates(self, window: float) -> tuple[float, float]:
        """Steps and tokens a second since the oldest showing within ``window`` seconds; zeros before there are two."""
        if self.record is None:
            return 0.0, 0.0
        self._past.append(self._sample())
        now, step, tokens = self._past[-1]
        while len(self._past) > 2 and self._past[1][0] <= now - window:
            self._past.popleft()
        then, first_step, first_tokens = self._past[0]
        passed = now - then
        return ((step - first_step) / passed, (tokens - first_tokens) / passed) if passed > 0 else (0.0, 0.0)

    def fields(self, window: float) -> list[tuple[str, str]]:
        """What a line tells, as (role, text), each padded to a steady width so that columns stay in place."""
        flowing = [unit for unit in self.limits if unit not in BOUGHT]
        unit = max(flowing, key=lambda one: self.spent.get(one, 0.0) / self.limits[one], default="seconds")
        steps_a_second, tokens_a_second = self.rates(window)
        told = [("share", f"{_whole_percent(self.share):>4}")]
        if unit in self.limits:
            told.append(("left", f"{_left(unit, max(0.0, self.limits[unit] - self.spent.get(unit, 0.0))):>7} left"))
        if unit != "seconds" and self.seconds_left is not None:
            told.append(("eta", f"eta {duration(self.seconds_left):<7}"))
        if self.record is None:
            return told
        record = self.record
        step = f"{record.step}/{self.steps_expected}" if self.steps_expected else str(record.step)
        told += [("step", f"step {step:>6}"), ("stage", record.stage)]
        # the loss of a policy gradient says nothing of how well things go
        name, value = ("reward", record.metrics["reward"]) if "reward" in record.metrics else ("loss", record.loss)
        told.append(("loss", f"{name} {number(value):<7}" if record.outcome == "ok" else f"{record.outcome:<12}"))
        told += [("knob", f"{name} {_knob(value):<7}") for name, value in list(record.knobs.items())[:KNOBS_SHOWN]]
        if tokens_a_second > 0:
            told.append(("tokens", f"{compact(tokens_a_second):>5} tok/s"))
        if steps_a_second > 0:
            told.append(("steps", f"{compact(round(steps_a_second, 2)):>5} step/s"))
        return told


def fit(told: list[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """Leave out what matters least until the fields, two spaces apart, are no wider than ``width``."""
    kept = list(told)
    for role in ("steps", "name", "knob", "knob", "tokens", "eta", "step", "knob", "bar"):
        if sum(len(text) + 2 for _, text in kept) - 2 <= width:
            break
        last = next((i for i in range(len(kept) - 1, -1, -1) if kept[i][0] == role), None)
        if last is not None:
            del kept[last]
    return kept


def _whole_percent(share: float) -> str:
    """Per cent rounded down: a run that has something left never reads 100 %."""
    return f"{int(100 * share + 1e-9)}%" if math.isfinite(share) else "?%"


def _left(unit: str, amount: float) -> str:
    if unit in {"seconds", "usd"}:
        return quantity(unit, amount)
    return f"{compact(amount):>5} {title(unit)}"


def _knob(value: float) -> str:
    if math.isfinite(value) and value == int(value) and abs(value) < 1e5:
        return str(int(value))
    return f"{value:.1e}" if abs(value) < 1e-2 else number(value)
