"""Linear: m(p) = start + (end - start) p."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Linear
from outlay.testing import check_schedule

ends = st.floats(min_value=-1e3, max_value=1e3)
progress = st.floats(min_value=0, max_value=1)


def test_decays_to_zero_by_default() -> None:
    assert [Linear().value(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_runs_from_start_to_end() -> None:
    assert [Linear(2.0, -2.0).value(p) for p in (0.0, 0.25, 0.5, 1.0)] == [2.0, 1.0, 0.0, -2.0]
    assert [Linear(end=0.5).value(p) for p in (0.0, 0.5, 1.0)] == [1.0, 0.75, 0.5]
    assert [Linear(start=0.0, end=8.0).value(p) for p in (0.0, 0.5, 1.0)] == [0.0, 4.0, 8.0]


@given(ends, ends, progress)
def test_is_a_straight_line_that_meets_both_ends_exactly(start: float, end: float, p: float) -> None:
    line = Linear(start, end)
    assert (line.value(0.0), line.value(1.0)) == (start, end)
    assert line.value(p) == pytest.approx(start + (end - start) * p, rel=1e-12, abs=1e-12 * (abs(start) + abs(end)))
    assert line.value(p) + Linear(end, start).value(p) == pytest.approx(start + end, abs=1e-12 * (abs(start) + abs(end) + 1))


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.25, 1.0), (1.0, 0.1)])
def test_agrees_with_torch(walk: Callable[..., list[float]], start: float, end: float) -> None:
    rates = walk(lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, start, end, total_iters=30), 30)
    assert rates == pytest.approx([Linear(start, end).value(t / 30) for t in range(31)], abs=1e-12)


def test_both_ends_are_finite() -> None:
    with pytest.raises(ValueError, match="start must be finite, found nan"):
        Linear(math.nan)
    with pytest.raises(ValueError, match="end must be finite, found inf"):
        Linear(1.0, math.inf)


@pytest.mark.parametrize("schedule", [Linear(), Linear(0.5, 2.0), Linear(-1e8, 1e-8)])
def test_holds_the_contract(schedule: Linear) -> None:
    check_schedule(schedule)
