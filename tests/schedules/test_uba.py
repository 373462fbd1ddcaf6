"""UBA: m(p) = 2 (1 + c) / (2 phi + (2 - phi) (1 + c)), c = cos(pi x)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Cosine, CosineRestarts, Uba
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)
phis = st.floats(min_value=1e-3, max_value=1e3)


@pytest.mark.parametrize(("phi", "middle"), [(0.25, 8 / 9), (0.5, 0.8), (1.0, 2 / 3), (2.0, 0.5), (5.0, 2 / 7)])
def test_the_middle(phi: float, middle: float) -> None:
    assert Uba(phi).value(0.5) == pytest.approx(middle, rel=1e-14)


def test_values_by_hand() -> None:
    # c = 1/2 at a third and -1/2 at two thirds: 2 * 1.5 / (2 phi + (2 - phi) 1.5) and 2 * 0.5 / (2 phi + (2 - phi) 0.5)
    assert [Uba(phi).value(1 / 3) for phi in (1.0, 4.0)] == pytest.approx([3 / 3.5, 3 / 5], rel=1e-14)
    assert [Uba(phi).value(2 / 3) for phi in (1.0, 4.0)] == pytest.approx([1 / 2.5, 1 / 7], rel=1e-14)
    assert Uba(1.0, floor=0.1).value(0.5) == pytest.approx(0.7, rel=1e-14)


@given(progress)
def test_phi_two_is_the_cosine(p: float) -> None:
    assert Uba(2.0, 0.1).value(p) == pytest.approx(Cosine(0.1).value(p), abs=1e-12)


@given(st.floats(min_value=0, max_value=0.99))
def test_phi_to_zero_holds_the_peak(p: float) -> None:
    assert Uba(1e-12).value(p) == pytest.approx(1.0, abs=1e-7)


@given(phis, st.floats(min_value=0, max_value=1), progress, progress)
def test_falls_from_one_to_the_floor(phi: float, floor: float, p: float, q: float) -> None:
    schedule = Uba(phi, floor)
    assert (schedule.value(0.0), schedule.value(1.0)) == (pytest.approx(1.0, rel=1e-14), floor)
    assert schedule.value(min(p, q)) >= schedule.value(max(p, q)) - 1e-14


@given(phis, phis, st.floats(min_value=0.01, max_value=0.99))
def test_a_larger_phi_decays_earlier(one: float, other: float, p: float) -> None:
    assert Uba(min(one, other)).value(p) >= Uba(max(one, other)).value(p) - 1e-14


@given(phis, progress)
def test_phases_fall_and_rise_in_turn(phi: float, p: float) -> None:
    """c = cos(pi phases p) throughout, so the phases join."""
    wave = 1 + math.cos(3 * math.pi * p)
    assert Uba(phi, phases=3).value(p) == pytest.approx(2 * wave / (2 * phi + (2 - phi) * wave), abs=1e-9)
    once, twice = Uba(phi), Uba(phi, phases=2)
    assert twice.value(p / 2) == pytest.approx(once.value(p), abs=1e-9)
    assert twice.value(1 - p / 2) == pytest.approx(once.value(p), abs=1e-6)


@given(progress)
def test_phases_that_restart(p: float) -> None:
    assert Uba(2.0, 0.1, phases=4, alternate=False).value(p) == pytest.approx(CosineRestarts(4, 1.0, 0.1).value(p), abs=1e-7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"phi": 0.0}, "phi must be finite and > 0, found 0.0"),
        ({"phi": math.inf}, "phi must be finite and > 0, found inf"),
        ({"floor": 1.1}, r"floor must lie in \[0, 1\], found 1.1"),
        ({"phases": 0}, "phases must be >= 1, found 0"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Uba(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [Uba(), Uba(5e-324), Uba(1e308, 0.1), Uba(phases=2), Uba(phases=7, alternate=False)])
def test_holds_the_contract(schedule: Uba) -> None:
    check_schedule(schedule)
