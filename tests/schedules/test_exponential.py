"""Exponential: m(p) = floor + (1 - floor) exp(-rate p)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Constant, Exponential, WarmupStableDecay
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)
rates = st.floats(min_value=0, max_value=50)


def test_values_by_hand() -> None:
    halving = Exponential(3 * math.log(2))
    assert [halving.value(p) for p in (0.0, 1 / 3, 2 / 3, 1.0)] == pytest.approx([1, 1 / 2, 1 / 4, 1 / 8], rel=1e-14)
    assert Exponential(math.log(4), floor=0.2).value(0.5) == pytest.approx(0.6, rel=1e-14)
    assert Exponential().value(1.0) == pytest.approx(math.exp(-5), rel=1e-14)


@given(rates, st.floats(min_value=0, max_value=0.5), st.floats(min_value=0, max_value=0.5))
def test_equal_parts_of_the_budget_lose_equal_shares(rate: float, p: float, q: float) -> None:
    schedule = Exponential(rate)
    assert schedule.value(p) * schedule.value(q) == pytest.approx(schedule.value(p + q), rel=1e-12)


@given(progress)
def test_special_cases(p: float) -> None:
    assert Exponential(0.0).value(p) == Constant().value(p)
    assert Exponential(3.0, floor=1.0).value(p) == 1.0
    tail = WarmupStableDecay(0.0, 1.0, "exponential", 0.1, half_life=0.2)
    assert Exponential(5 * math.log(2), 0.1).value(p) == pytest.approx(tail.value(p), rel=1e-12)


def test_agrees_with_torch(walk: Callable[..., list[float]]) -> None:
    walked = walk(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.93), 60)
    schedule = Exponential(-60 * math.log(0.93))
    assert walked == pytest.approx([schedule.value(t / 60) for t in range(61)], rel=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": -1.0}, "rate must be finite and >= 0, found -1.0"),
        ({"rate": math.inf}, "rate must be finite and >= 0, found inf"),
        ({"floor": 1.5}, r"floor must lie in \[0, 1\], found 1.5"),
        ({"floor": math.nan}, r"floor must lie in \[0, 1\], found nan"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Exponential(**fields)


@pytest.mark.parametrize("schedule", [Exponential(), Exponential(0.0), Exponential(1e308), Exponential(2.0, 0.1)])
def test_holds_the_contract(schedule: Exponential) -> None:
    check_schedule(schedule)
