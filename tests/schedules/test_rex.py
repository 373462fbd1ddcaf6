"""REX: m(p) = (1 - p) / (1/2 + (1 - p)/2), and its generalisation by beta."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Linear, Rex
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)
betas = st.floats(min_value=1e-3, max_value=1e3)
floors = st.floats(min_value=0, max_value=1)


def test_values_of_the_paper() -> None:
    rex = Rex()
    assert (rex.value(0.0), rex.value(1.0)) == (1.0, 0.0)
    assert rex.value(1 / 2) == pytest.approx(2 / 3, rel=1e-15)
    assert rex.value(3 / 4) == pytest.approx(0.4, rel=1e-15)


def test_values_of_the_generalisation() -> None:
    # (1 - p) / (1 - p (1 - beta)) by hand
    assert Rex(0.25).value(1 / 2) == pytest.approx(4 / 5, rel=1e-15)
    assert Rex(3.0).value(1 / 2) == pytest.approx(1 / 4, rel=1e-15)
    assert Rex(2.0).value(3 / 4) == pytest.approx(1 / 7, rel=1e-15)
    assert Rex(0.5, floor=0.4).value(3 / 4) == pytest.approx(0.64, rel=1e-15)


@given(progress)
def test_the_papers_form_and_the_reflected_form(p: float) -> None:
    exact = Fraction(p)
    paper = (1 - exact) / (Fraction(1, 2) + (1 - exact) / 2)
    assert Rex().value(p) == pytest.approx(float(paper), rel=1e-14, abs=1e-300)
    assert Rex().value(p) == pytest.approx(2.0 - 2.0 / (2.0 - p), abs=4e-16)


@given(progress)
def test_beta_one_is_linear(p: float) -> None:
    assert Rex(1.0).value(p) == pytest.approx(Linear().value(p), rel=1e-15)


@given(st.floats(min_value=0, max_value=0.999))
def test_beta_to_zero_holds_the_peak(p: float) -> None:
    assert Rex(1e-12).value(p) == pytest.approx(1.0, abs=1e-8)


@given(betas, floors, progress, progress)
def test_falls_from_one_to_the_floor(beta: float, floor: float, p: float, q: float) -> None:
    schedule = Rex(beta, floor)
    assert schedule.value(0.0) == pytest.approx(1.0, rel=1e-15)
    assert schedule.value(1.0) == floor
    assert schedule.value(min(p, q)) >= schedule.value(max(p, q)) - 1e-15
    assert floor - 1e-15 <= schedule.value(p) <= 1.0 + 1e-15


@given(st.floats(min_value=0.01, max_value=0.99), st.floats(min_value=0.01, max_value=0.99))
def test_smaller_beta_decays_later(p: float, beta: float) -> None:
    assert Rex(beta).value(p) > Linear().value(p) > Rex(1 / beta).value(p)


@given(betas, st.floats(min_value=0.001, max_value=0.998), st.floats(min_value=0.001, max_value=0.998))
def test_bends_one_way_only(beta: float, p: float, q: float) -> None:
    chord = (Rex(beta).value(p) + Rex(beta).value(q)) / 2
    bend = Rex(beta).value((p + q) / 2) - chord
    assert bend >= -1e-14 if beta <= 1 else bend <= 1e-14


def test_slopes_at_the_ends() -> None:
    h = 1e-7
    assert (Rex().value(h) - 1.0) / h == pytest.approx(-1 / 2, abs=1e-6)
    assert (0.0 - Rex().value(1.0 - h)) / h == pytest.approx(-2.0, abs=1e-6)


@given(betas, progress)
def test_is_its_own_inverse(beta: float, p: float) -> None:
    """1 - m = p beta / (1 - p (1 - beta)), so m(m(p)) = p for every beta."""
    assert Rex(beta).value(Rex(beta).value(p)) == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize("beta", [0.0, -0.5, math.nan, math.inf])
def test_refuses_beta(beta: float) -> None:
    with pytest.raises(ValueError, match=f"beta must be finite and > 0, found {beta}"):
        Rex(beta)


@pytest.mark.parametrize("floor", [-0.1, 1.1, math.nan])
def test_refuses_a_floor_outside_the_unit_interval(floor: float) -> None:
    with pytest.raises(ValueError, match=r"floor must lie in \[0, 1\], found"):
        Rex(floor=floor)


@pytest.mark.parametrize("schedule", [Rex(), Rex(1e-17), Rex(5e-324), Rex(1e308), Rex(2.0, 0.1)])
def test_holds_the_contract(schedule: Rex) -> None:
    check_schedule(schedule)
