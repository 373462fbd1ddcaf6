"""The checks themselves: each rule is broken once, on purpose, and must be found."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import outlay
from outlay.controllers import Plateau
from outlay.record import Record
from outlay.schedules import Constant, Linear, Schedule, Warmup
from outlay.testing import FakeClock, check_schedule, record

# ---- helpers -------------------------------------------------------------------------------------------------------------------------


def test_a_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(5.0)
    assert [clock(), clock()] == [5.0, 5.0]
    clock.advance(1.5)
    assert clock() == 6.5
    clock.now = 2.0
    assert clock() == 2.0
    with pytest.raises(ValueError, match="a clock advances by seconds >= 0, found -1"):
        clock.advance(-1)


def test_a_noisy_clock_follows_its_stream() -> None:
    def walk(noise: float, seed: int = 0, name: str = "clock") -> list[float]:
        clock, walked = FakeClock(0.0, noise, seed, name), []
        for _ in range(200):
            clock.advance(1.0)
            walked.append(clock())
        return walked

    assert walk(0.3) == walk(0.3)
    assert len({walk(0.3)[0], walk(0.3, seed=1)[0], walk(0.3, name="other")[0], walk(0.6)[0], 1.0}) == 5
    logs = np.log(np.diff([0.0, *walk(0.3)]))
    assert abs(logs.mean()) < 0.1 and logs.std() == pytest.approx(0.3, rel=0.15)


def test_a_record_has_what_it_was_given() -> None:
    assert record() == Record("step", 1, "train", 0.0, 1.0)
    given = dict(kind="evaluation", stage="s", progress=0.5, gradient_norm=2.0, knobs={"lr": 1.0}, charges={"steps": 1.0})
    more = dict(metrics={"accuracy": 0.5}, outcome="skipped", detail={"losses": [1.0]})
    assert record(7, None, **given, **more) == Record(step=7, loss=None, **given, **more)  # type: ignore[arg-type]


# ---- schedules -----------------------------------------------------------------------------------------------------------------------


class Counting:
    def __init__(self) -> None:
        self.reads = 0

    def value(self, progress: float) -> float:
        self.reads += 1
        return float(self.reads)


class Ordered:
    """Remembers the largest progress it was read at."""

    def __init__(self) -> None:
        self.latest = 0.0

    def value(self, progress: float) -> float:
        self.latest = max(self.latest, progress)
        return self.latest


class Gap:
    """Not finite at a single point."""

    def __init__(self, point: float, value: float) -> None:
        self.point = point
        self.bad = value

    def value(self, progress: float) -> float:
        return self.bad if progress == self.point else 1.0


class Worded:
    def value(self, progress: float) -> Any:
        return "1.0"


class Truth:
    def value(self, progress: float) -> Any:
        return True


class Stateful:
    def value(self, progress: float) -> float:
        return 1.0

    def state_dict(self) -> dict[str, float]:
        return {}


@dataclass
class Scribbling:
    """Its values are right, but reading writes into its fields."""

    reads: int = 0

    def value(self, progress: float) -> float:
        self.reads += 1
        return 1.0


@dataclass(frozen=True)
class Forgetful:
    """Does not keep a field as it was given."""

    level: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", self.level / 2)

    def value(self, progress: float) -> float:
        return self.level


@dataclass(frozen=True)
class Untyped:
    """A field whose value is not of the type that is written."""

    level: int = 0.5  # type: ignore[assignment]

    def value(self, progress: float) -> float:
        return self.level


@dataclass(frozen=True)
class Good:
    """A user's own schedule that keeps every rule."""

    level: float = 2.0
    then: Schedule = field(default_factory=Linear)

    def value(self, progress: float) -> float:
        return self.level * self.then.value(progress)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Counting(), r"the same progress gives the same value; .* at progress 0\.0 gave 1\.0 and, read again"),
        (Ordered(), r"the same progress gives the same value; .* in the same order, 1\.0"),
        (Gap(0.0, math.nan), r"a schedule is finite on \[0, 1\]; .* at progress 0\.0 gave nan"),
        (Gap(1.0, math.inf), r"a schedule is finite on \[0, 1\]; .* at progress 1\.0 gave inf"),
        (Gap(0.5, -math.inf), r"a schedule is finite on \[0, 1\]; .* at progress 0\.5 gave -inf"),
        (Worded(), r"a schedule's value is a number; .* gave '1\.0'"),
        (Truth(), "a schedule's value is a number; .* gave True"),
        (Stateful(), "a schedule keeps nothing and listens to nothing .* has state_dict"),
        (Plateau(), r"a schedule keeps nothing and listens to nothing .*Plateau.* has state_dict"),
        (Scribbling(), r"reading a schedule changes nothing in it; .*'reads': 0.* became .*'reads': "),
        (Forgetful(), r"the object is the config: .*Forgetful\(level=0\.5\) became Forgetful\(level=0\.25\)"),
        (Untyped(), r"the object is the config: .*'level': 0\.5.* was refused: Untyped\.level: expected a whole number, found 0\.5"),
        (Warmup(then=Counting()), "the same progress gives the same value"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_broken_schedule_is_found(schedule: Schedule, message: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        check_schedule(schedule)


class Plain:
    def value(self, progress: float) -> float:
        return progress


@pytest.mark.parametrize("schedule", [Good(), Good(0.5, Warmup()), Constant(3), Plain()])
def test_a_sound_schedule_passes(schedule: Schedule) -> None:
    check_schedule(schedule)


def test_needs_no_test_runner_and_works_without_assert_statements() -> None:
    code = """
import sys
from outlay.testing import check_schedule
from outlay.schedules import Rex
class Broken:
    def value(self, progress):
        return float("nan")
check_schedule(Rex())
try:
    check_schedule(Broken())
except AssertionError as error:
    print(error)
print(sorted({"pytest", "hypothesis", "torch", "transformers"} & set(sys.modules)))
"""
    path = str(Path(outlay.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path}
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("a schedule is finite on [0, 1]; <__main__.Broken")
    assert second == "[]"
