"""Inverse square root: m(p) = 1 / sqrt(1 + p / timescale)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import InverseSquareRoot, Warmup
from outlay.testing import check_schedule


def test_values_by_hand() -> None:
    schedule = InverseSquareRoot(0.1)
    assert [schedule.value(p) for p in (0.0, 0.1, 0.3, 0.8)] == pytest.approx([1.0, math.sqrt(1 / 2), 1 / 2, 1 / 3], rel=1e-14)


@given(st.floats(min_value=0.01, max_value=0.9), st.floats(min_value=1e-6, max_value=1))
def test_with_its_warmup_it_is_the_papers(warmup: float, p: float) -> None:
    """min(t^-1/2, t w^-3/2) relative to its peak w^-1/2."""
    schedule = Warmup(warmup, InverseSquareRoot(warmup / (1 - warmup)))
    assert schedule.value(p) == pytest.approx(min(p**-0.5, p * warmup**-1.5) / warmup**-0.5, rel=1e-9)


def test_the_default_goes_with_the_default_warmup() -> None:
    assert Warmup(then=InverseSquareRoot()).value(0.8) == pytest.approx(math.sqrt(0.05 / 0.8), rel=1e-12)


@pytest.mark.parametrize("timescale", [None, 25])
def test_agrees_with_transformers(walk: Callable[..., list[float]], timescale: int | None) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    rates = walk(lambda optimizer: optimization.get_inverse_sqrt_schedule(optimizer, 10, timescale=timescale), 100)
    schedule = Warmup(0.1, InverseSquareRoot((timescale or 10) / 90))
    assert rates == pytest.approx([schedule.value(t / 100) for t in range(101)], abs=1e-12)


@pytest.mark.parametrize("timescale", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_timescale(timescale: float) -> None:
    with pytest.raises(ValueError, match=rf"timescale must be finite and > 0 \(at least 1e-300\), found {timescale}"):
        InverseSquareRoot(timescale)


@pytest.mark.parametrize("schedule", [InverseSquareRoot(), InverseSquareRoot(1e-300), InverseSquareRoot(1e300)])
def test_holds_the_contract(schedule: InverseSquareRoot) -> None:
    check_schedule(schedule)
