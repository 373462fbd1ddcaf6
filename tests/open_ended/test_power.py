"""Power: the plateau and its end, the exponent, the batch factor, and no trace of a total."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.open_ended import InverseRoot, Power
from outlay.testing import check_open_schedule


def knee(schedule: Power) -> float:
    return (schedule.peak / (schedule.batch * schedule.a)) ** (1 / schedule.b)


def test_by_hand() -> None:
    # 8 * 2 / 4 = 4 at n = 1, falling as 1 / n
    schedule = Power(batch=8.0, peak=4.0, a=2.0, b=-1.0)
    assert [schedule.at(n) for n in (0.0, 1.0, 4.0)] == [1.0, 1.0, 1.0]
    assert [schedule.at(n) for n in (8.0, 16.0, 400.0, 4e9)] == pytest.approx([0.5, 0.25, 0.01, 1e-9], rel=1e-13)


def test_the_papers_constants() -> None:
    """Learning rates as the paper writes them, min(0.02, 128 4 n^-0.51), at a billion and at a trillion tokens."""
    schedule = Power(batch=128.0)
    for tokens in (1e9, 1e12):
        assert 0.02 * schedule.at(tokens) == pytest.approx(128 * 4 * tokens**-0.51, rel=1e-12)
    assert schedule.at(1e8) == 1.0


@pytest.mark.parametrize("batch", [128.0, 4096.0])
def test_holds_the_peak_to_the_knee_and_then_falls_by_the_power(batch: float) -> None:
    schedule = Power(batch)
    n = knee(schedule)
    assert schedule.at(n * 0.999) == 1.0 and schedule.at(n) == pytest.approx(1.0, rel=1e-12) and schedule.at(n * 1.001) < 1.0
    slope = math.log(schedule.at(50 * n) / schedule.at(5 * n)) / math.log(10)
    assert slope == pytest.approx(-0.51, rel=1e-12)


@given(st.floats(1, 1000), st.floats(1.1, 1e6))
def test_is_linear_in_the_batch_below_the_cap(batch: float, times: float) -> None:
    one, double = Power(batch), Power(2 * batch)
    n = knee(double) * times
    assert double.at(n) == pytest.approx(2 * one.at(n), rel=1e-11)


def test_rises_to_the_power_at_the_end_of_the_warm_up() -> None:
    low = Power(batch=8.0, warmup=16.0, peak=4.0, a=2.0, b=-1.0)  # the warm-up ends beyond the knee, at a quarter
    assert [low.at(n) for n in (0.0, 4.0, 8.0, 16.0, 32.0)] == pytest.approx([0.0, 0.0625, 0.125, 0.25, 0.125], rel=1e-13)
    high = Power(batch=8.0, warmup=2.0, peak=4.0, a=2.0, b=-1.0)
    assert [high.at(n) for n in (1.0, 2.0, 4.0)] == [0.5, 1.0, 1.0]
    for schedule in (low, high):
        end = schedule.warmup
        assert schedule.at(math.nextafter(end, 0.0)) == pytest.approx(schedule.at(end), rel=1e-14)


@given(st.floats(1, 1e12))
def test_an_exponent_of_a_half_is_an_inverse_root(amount: float) -> None:
    """Beyond the knee, here at n = 100, sqrt(100 / n)."""
    power = Power(batch=10.0, peak=1.0, a=1.0, b=-0.5, warmup=100.0)
    assert power.at(amount) == pytest.approx(InverseRoot(100.0).at(amount), rel=1e-12)


@pytest.mark.parametrize("schedule", [Power(128.0), Power(1e-9, 1e9), Power(1e12, b=-3.0), Power(1.0, b=-1e-9), Power(8.0, 5e-324)])
def test_holds_the_contract(schedule: Power) -> None:
    check_open_schedule(schedule)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 0.0}, "batch must be finite and > 0, found 0.0"),
        ({"warmup": -1.0}, "warmup must be finite and >= 0, found -1.0"),
        ({"peak": 0.0}, "peak must be finite and > 0, found 0.0"),
        ({"a": math.inf}, "a must be finite and > 0, found inf"),
        ({"b": 0.0}, "b must be finite and < 0, found 0.0"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Power(**({"batch": 128.0} | fields))
