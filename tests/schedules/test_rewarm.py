"""Re-warm and re-decay: linear from the start to the peak, then a cosine to the floor."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Cosine, Rewarm, Warmup
from outlay.testing import check_schedule

unit = st.floats(min_value=0, max_value=1)


def test_values_by_hand() -> None:
    schedule = Rewarm(rise=0.2, start=0.4, floor=0.1)
    assert [schedule.value(p) for p in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.4, 0.7, 1.0, 0.55, 0.1], rel=1e-12)
    assert [Rewarm().value(p) for p in (0.0, 0.005, 0.01, 1.0)] == pytest.approx([0.1, 0.55, 1.0, 0.1], rel=1e-12)


@given(st.floats(min_value=0, max_value=0.9), unit, unit, unit)
def test_is_a_cosine_after_a_warmup_from_its_start(rise: float, start: float, floor: float, p: float) -> None:
    assert Rewarm(rise, start, floor).value(p) == pytest.approx(Warmup(rise, Cosine(floor), start).value(p), abs=1e-15)


@given(unit)
def test_without_a_rise_it_is_the_cosine(p: float) -> None:
    assert Rewarm(rise=0.0).value(p) == Cosine(0.1).value(p)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rise": 1.0}, r"rise must lie in \[0, 1\), found 1.0"),
        ({"start": 1.1}, r"start must lie in \[0, 1\], found 1.1"),
        ({"floor": math.nan}, r"floor must lie in \[0, 1\], found nan"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rewarm(**fields)


@pytest.mark.parametrize("schedule", [Rewarm(), Rewarm(0.0, 0.0, 0.0), Rewarm(1 - 1e-16, 0.5)])
def test_holds_the_contract(schedule: Rewarm) -> None:
    check_schedule(schedule)
