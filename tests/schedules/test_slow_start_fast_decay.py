"""Slow start, fast decay: a straight line up to the turn, then exponential."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Exponential, SlowStartFastDecay
from outlay.testing import check_schedule


def test_values_by_hand() -> None:
    schedule = SlowStartFastDecay(start=0.2, turn=0.4, end=1e-4)
    assert [schedule.value(p) for p in (0.0, 0.2, 0.4, 0.55, 0.7, 1.0)] == pytest.approx([0.2, 0.6, 1.0, 0.1, 0.01, 1e-4], rel=1e-12)
    assert [SlowStartFastDecay().value(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.1, 0.55, 1.0, 0.001], rel=1e-12)


@given(st.floats(min_value=0, max_value=1))
def test_without_a_rise_it_is_exponential(p: float) -> None:
    assert SlowStartFastDecay(turn=0.0, end=0.02).value(p) == pytest.approx(Exponential(-math.log(0.02)).value(p), rel=1e-12)


@given(st.floats(min_value=0.01, max_value=0.99), st.floats(min_value=0, max_value=1))
def test_the_peak_is_at_the_turn(turn: float, p: float) -> None:
    schedule = SlowStartFastDecay(turn=turn)
    assert schedule.value(p) <= schedule.value(turn) == 1.0
    assert schedule.value(turn * (1 - 1e-12)) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": -0.1}, r"start must lie in \[0, 1\], found -0.1"),
        ({"turn": 1.0}, r"turn must lie in \[0, 1\), found 1.0"),
        ({"end": 0.0}, r"end must lie in \(0, 1\], found 0.0"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SlowStartFastDecay(**fields)


@pytest.mark.parametrize("schedule", [SlowStartFastDecay(), SlowStartFastDecay(0.0, 0.0, 5e-324), SlowStartFastDecay(1.0, 0.9, 1.0)])
def test_holds_the_contract(schedule: SlowStartFastDecay) -> None:
    check_schedule(schedule)
