"""WSD-S: the peak, and before each budget point an inverse-linear tail that ends exactly there."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Constant, WarmupStableDecay, WsdS
from outlay.testing import check_schedule

STEPS = 2000
#: tails of 50, 100 and 200 steps that end at the steps 500, 1000 and 2000
TAILS = {500: 50, 1000: 100, 2000: 200}


def test_every_step_of_a_run() -> None:
    """The reciprocal goes from 1 to 10 in a straight line over a tail, and is 1 everywhere else."""
    expected = [1.0] * STEPS
    for end, length in TAILS.items():
        for into in range(length):
            expected[end - length + into] = 1 / (1 + 9 * into / length)
    assert [WsdS().value(step / STEPS) for step in range(STEPS)] == pytest.approx(expected, rel=1e-9)


def test_the_tail_ends_at_the_floor_and_the_peak_is_back_at_once() -> None:
    for point in (0.25, 0.5):
        assert WsdS().value(point - 1e-7) == pytest.approx(0.1, rel=1e-4)
        assert WsdS().value(point) == 1.0
        assert WsdS().value(0.95 * point) == pytest.approx(2 * 0.1 / 1.1, rel=1e-12)  # 0.1818 of the peak
    assert WsdS().value(1.0) == pytest.approx(0.1, rel=1e-14)


def test_a_step_at_a_budget_point_is_back_at_the_peak_however_its_progress_is_rounded() -> None:
    for steps in range(20, 300):
        for step in (steps // 3, steps // 2):
            schedule = WsdS((math.nextafter(step / steps, 1.0),))
            assert schedule.value(step / steps) == 1.0
            assert schedule.value(math.nextafter(step / steps, 0.0)) == 1.0


@given(st.floats(min_value=0, max_value=1))
def test_special_cases(p: float) -> None:
    alone = WarmupStableDecay(0.05, 0.2, "inverse_linear", 0.1)
    assert WsdS((), 0.2, 0.1, 0.05).value(p) == pytest.approx(alone.value(p), rel=1e-9)
    assert WsdS((1.0,), 0.2, 0.1, 0.05).value(p) == WsdS((), 0.2, 0.1, 0.05).value(p)
    assert WsdS(floor=1.0).value(p) == pytest.approx(Constant().value(p), rel=1e-15)
    linear = WarmupStableDecay(0.0, 0.1, "linear")
    assert WsdS(shape="linear", floor=0.0).value(p / 4 * (1 - 1e-8)) == pytest.approx(linear.value(p), abs=1e-6)


def test_the_rise() -> None:
    schedule = WsdS((0.5,), warmup=0.2)
    assert [schedule.value(p) for p in (0.0, 0.1, 0.2, 0.3)] == [0.0, 0.5, 1.0, 1.0]
    assert schedule.value(0.5) == 1.0  # no second one


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"at": (0.0, 0.5)}, r"every point of at must lie in \(0, 1\], found \(0.0, 0.5\)"),
        ({"at": (0.5, 0.25)}, r"the points of at must rise, found \(0.5, 0.25\)"),
        ({"at": (0.5, 0.52)}, "the tail before 0.52 would begin at 0.468, before the budget point 0.5"),
        ({"at": (0.95,)}, "the tail before 1 would begin at 0.9, before the budget point 0.95"),
        ({"decay": 0.0}, r"decay must lie in \(0, 1\), found 0.0"),
        ({"decay": 1.0}, r"decay must lie in \(0, 1\), found 1.0"),
        ({"floor": 0.0}, "the tail inverse_linear needs a floor > 0, found 0.0"),
        ({"floor": 1.1}, r"floor must lie in \[0, 1\], found 1.1"),
        ({"warmup": 0.3}, r"warmup must lie in \[0, 0.225\], where the first tail begins, found 0.3"),
        ({"shape": "sqrt"}, "shape must be one of linear, .*, found 'sqrt'"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WsdS(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [WsdS(), WsdS((), 0.999), WsdS((0.1, 0.2, 0.9), 0.01, 0.5, 0.05), WsdS(shape="cosine", floor=0.0)])
def test_holds_the_contract(schedule: WsdS) -> None:
    check_schedule(schedule)
