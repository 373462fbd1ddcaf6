"""Hold: a rise, then the peak for ever."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.open_ended import Hold, OpenSchedule
from outlay.schedules import WarmupStableDecay
from outlay.testing import check_open_schedule


def test_by_hand() -> None:
    schedule = Hold(200.0)
    assert [schedule.at(n) for n in (0.0, 50.0, 100.0, 200.0, 201.0, 1e9, 1e18)] == [0.0, 0.25, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert Hold().at(0.0) == 1.0


@given(st.integers(1, 500), st.integers(0, 899))
def test_is_the_trunk_of_warm_up_stable_decay(warmup: int, step: int) -> None:
    """Before the tail a run of 1000 steps reads the same."""
    assert Hold(float(warmup)).at(step) == pytest.approx(WarmupStableDecay(warmup / 1000, 0.1).value(step / 1000), abs=1e-15)


def test_is_continuous_where_the_rise_ends() -> None:
    assert Hold(7.0).at(math.nextafter(7.0, 0.0)) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("warmup", [0.0, 1e-12, 1.0, 2.5, 1e9])
def test_holds_the_contract(warmup: float) -> None:
    check_open_schedule(Hold(warmup))
    assert isinstance(Hold(warmup), OpenSchedule)


@pytest.mark.parametrize("warmup", [-1.0, math.inf, math.nan])
def test_refuses(warmup: float) -> None:
    with pytest.raises(ValueError, match="warmup must be finite and >= 0, found"):
        Hold(warmup)
