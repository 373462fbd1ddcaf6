"""Constant: one value, whatever was spent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Constant
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)


@given(st.floats(allow_nan=False, allow_infinity=False), progress)
def test_the_level_is_the_value_everywhere(level: float, p: float) -> None:
    assert Constant(level).value(p) == level
    assert Constant().value(p) == 1.0


@pytest.mark.parametrize("level", [math.nan, math.inf, -math.inf])
def test_the_level_is_finite(level: float) -> None:
    with pytest.raises(ValueError, match=f"level must be finite, found {level}"):
        Constant(level)


@pytest.mark.parametrize("level", [1.0, 0.0, -3.5, 1e300])
def test_holds_the_contract(level: float) -> None:
    check_schedule(Constant(level))
