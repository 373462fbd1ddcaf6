"""Triangle wave: 0, up, 0, down, 0 in straight lines."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import TriangleWave
from outlay.testing import check_schedule


def test_values_of_the_paper() -> None:
    """Amplitude 5, a period of 1200 tokens of 8192."""
    values = [TriangleWave().value(n / 8192) for n in (0, 150, 300, 600, 900, 1050, 1200, 1350)]
    assert values == pytest.approx([0.0, 2.5, 5.0, 0.0, -5.0, -2.5, 0.0, 2.5], abs=1e-12)


def test_the_shift_is_a_share_of_a_period() -> None:
    shifted = TriangleWave(2.0, 1.0, shift=0.25)
    assert [shifted.value(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx([2.0, 0.0, -2.0, 0.0, 2.0], abs=1e-15)


@given(st.integers(min_value=1, max_value=9), st.floats(min_value=-3, max_value=3))
def test_whole_waves_have_the_mean_zero(cycles: int, shift: float) -> None:
    wave = TriangleWave(5.0, float(cycles), shift)
    points = 400 * cycles
    assert math.fsum(wave.value(k / points) for k in range(points)) / points == pytest.approx(0.0, abs=1e-9)


@given(st.floats(min_value=0, max_value=0.5))
def test_half_a_period_later_it_is_the_opposite(p: float) -> None:
    wave = TriangleWave(3.0, 1.0)
    assert wave.value(p + 0.5) == pytest.approx(-wave.value(p), abs=1e-12)
    assert TriangleWave(-3.0, 1.0).value(p) == -wave.value(p)


@given(st.floats(min_value=0, max_value=1))
def test_is_a_folded_sine(p: float) -> None:
    wave = TriangleWave(1.0, 2.3, 0.1)
    assert wave.value(p) == pytest.approx(2 / math.pi * math.asin(math.sin(2 * math.pi * (2.3 * p + 0.1))), abs=1e-6)


def test_without_amplitude_nothing_is_pushed() -> None:
    assert {TriangleWave(0.0).value(k / 100) for k in range(101)} == {0.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"amplitude": math.inf}, "amplitude must be finite, found inf"),
        ({"cycles": 0.0}, "cycles must be finite and > 0, found 0.0"),
        ({"shift": math.nan}, "shift must be finite, found nan"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TriangleWave(**fields)


@pytest.mark.parametrize("schedule", [TriangleWave(), TriangleWave(-1e308, 3.0, -7.3), TriangleWave(1.0, 1e300)])
def test_holds_the_contract(schedule: TriangleWave) -> None:
    check_schedule(schedule)
