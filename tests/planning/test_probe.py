"""A probe under a clock of our own."""

import pytest

from outlay.budget import Budget
from outlay.errors import InputError
from outlay.meter import Meter
from outlay.planning.probe import ProbeResult, probe


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(times: list[float], budget: str = "1h", steps: int = 5) -> tuple[ProbeResult, Meter]:
    clock = Clock()
    meter = Meter(Budget.parse(budget), clock)
    left = iter(times)

    def step() -> None:
        clock.now += next(left)

    return probe(step, meter, steps), meter


def test_median_and_quartiles_without_the_warm_up() -> None:
    result, meter = run([50.0, 4.0, 1.0, 5.0, 2.0, 3.0])
    assert result == ProbeResult(3.0, 2.0, 4.0, 5, 6)
    assert meter.accounts["probe"]["seconds"] == 65.0 == meter.spent("seconds")


def test_quartiles_lie_between_the_measured() -> None:
    assert run([9.0, 1.0, 2.0], steps=2)[0] == ProbeResult(1.5, 1.25, 1.75, 2, 3)


def test_stops_before_the_slowest_step_would_pass_the_limit() -> None:
    result, meter = run([4.0, 3.0, 3.0, 3.0, 3.0, 3.0], budget="14s")
    # after 4 + 3 + 3 there are 4 seconds left, and a step has taken 4
    assert result == ProbeResult(3.0, 3.0, 3.0, 2, 3)
    assert meter.spent("seconds") == 10.0


def test_a_warm_up_alone_is_a_measurement() -> None:
    assert run([8.0], budget="10s")[0] == ProbeResult(8.0, 8.0, 8.0, 1, 1)


def test_seconds_charged_inside_the_step_count() -> None:
    clock = Clock()
    meter = Meter(Budget.parse("1h"), clock)

    def step() -> None:
        clock.now += 1.0
        with meter.spend("data"):
            clock.now += 2.0

    assert probe(step, meter, 1, account="trial").seconds == 3.0
    assert {name: book["seconds"] for name, book in meter.accounts.items() if book["seconds"]} == {"trial": 2.0, "data": 4.0}


def test_at_least_one_step() -> None:
    with pytest.raises(InputError, match="at least 1 step, found 0"):
        run([], steps=0)
