"""Data share in cycles: passes over a growing and shrinking part of the data."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Constant, DataShareCycle
from outlay.testing import check_schedule


def test_shares_of_the_paper() -> None:
    assert DataShareCycle(epochs=4.0).shares == (0.25, 0.5, 1.0, 0.5, 0.25, 0.5, 1.0)
    assert DataShareCycle(epochs=1.75).shares == (0.25, 0.5, 1.0)
    assert DataShareCycle(0.1, 0.9, 0.2, epochs=2.0).shares == pytest.approx((0.1, 0.5, 0.9, 0.18, 0.1, 0.5))


def test_a_pass_takes_the_part_of_the_budget_that_it_reads() -> None:
    """Running sums 0.25, 0.75, 1.75, 2.25, 2.5, 3, 4 of 4 epochs."""
    schedule = DataShareCycle(epochs=4.0)
    for start, end, share in [(0, 0.25, 0.25), (0.25, 0.75, 0.5), (0.75, 1.75, 1.0), (1.75, 2.25, 0.5), (2.25, 2.5, 0.25), (3, 4, 1.0)]:
        assert [schedule.value((start + x * (end - start)) / 4) for x in (0.0, 0.5, 0.99)] == [share] * 3
    assert schedule.value(1.0) == 1.0


def test_the_last_pass_is_cut_by_the_budget() -> None:
    schedule = DataShareCycle(epochs=1.5)
    assert schedule.shares == (0.25, 0.5, 1.0)
    assert [schedule.value(e / 1.5) for e in (0.2, 0.5, 0.76, 1.5)] == [0.25, 0.5, 1.0, 1.0]


@given(
    st.floats(min_value=0.05, max_value=1), st.floats(min_value=0, max_value=1), st.floats(min_value=0.1, max_value=0.9),
    st.floats(min_value=0.1, max_value=30),
)  # fmt: skip
def test_shares_reach_the_budget_and_pass_it_by_less_than_one_pass(smallest: float, room: float, factor: float, epochs: float) -> None:
    largest = smallest + (1 - smallest) * room
    schedule = DataShareCycle(smallest, largest, factor, epochs)
    assert epochs - 1e-9 <= math.fsum(schedule.shares) < max(epochs, smallest) + largest + 1e-9
    assert schedule.shares[0] == smallest
    assert all(smallest <= share <= largest for share in schedule.shares)
    turns = [(a, b, c) for a, b, c in zip(schedule.shares, schedule.shares[1:], schedule.shares[2:], strict=False) if (b - a) * (c - b) < 0]
    assert all(b in (smallest, largest) for _, b, _ in turns)  # it turns at the bounds and nowhere else


@given(st.floats(min_value=0, max_value=1))
def test_with_all_data_every_pass_is_plain_training(p: float) -> None:
    assert DataShareCycle(1.0, 1.0).value(p) == Constant().value(p)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"smallest": 0.0}, r"smallest must lie in \(0, 1\], found 0.0"),
        ({"largest": 0.2}, r"largest must lie in \[0.25, 1\], found 0.2"),
        ({"factor": 1.0}, r"factor must lie in \(0, 1\), found 1.0"),
        ({"epochs": math.inf}, "epochs must be finite and > 0, found inf"),
        ({"epochs": 1e5}, "epochs / smallest must be at most 100000 passes, found 400000"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataShareCycle(**fields)


@pytest.mark.parametrize("schedule", [DataShareCycle(), DataShareCycle(0.001, 0.9, 0.7, 3.0), DataShareCycle(epochs=0.1)])
def test_holds_the_contract(schedule: DataShareCycle) -> None:
    check_schedule(schedule)
