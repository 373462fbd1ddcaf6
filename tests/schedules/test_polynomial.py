"""Polynomial: m(p) = floor + (1 - floor) (1 - p)^power."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Linear, Polynomial, Warmup
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)
floors = st.floats(min_value=0, max_value=1)


def test_values_by_hand() -> None:
    assert [Polynomial(2.0).value(p) for p in (0.0, 0.5, 0.75, 1.0)] == [1.0, 0.25, 0.0625, 0.0]
    assert [Polynomial(0.5, floor=0.2).value(p) for p in (0.0, 0.75, 1.0)] == pytest.approx([1.0, 0.6, 0.2], rel=1e-15)
    assert Polynomial().value(0.5) == pytest.approx(0.5**0.9, rel=1e-15)


@given(floors, progress)
def test_power_one_is_linear(floor: float, p: float) -> None:
    assert Polynomial(1.0, floor).value(p) == pytest.approx(Linear(1.0, floor).value(p), abs=1e-15)


@given(st.floats(min_value=0.01, max_value=10), floors, progress, progress)
def test_falls_from_one_to_the_floor(power: float, floor: float, p: float, q: float) -> None:
    schedule = Polynomial(power, floor)
    assert (schedule.value(0.0), schedule.value(1.0)) == (pytest.approx(1.0, rel=1e-15), floor)
    assert schedule.value(min(p, q)) >= schedule.value(max(p, q)) - 1e-15


@pytest.mark.parametrize("power", [0.9, 1.0, 3.0])
def test_agrees_with_torch(walk: Callable[..., list[float]], power: float) -> None:
    rates = walk(lambda optimizer: torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=40, power=power), 40)
    assert rates == pytest.approx([Polynomial(power).value(t / 40) for t in range(41)], abs=1e-12)


@pytest.mark.parametrize("power", [0.9, 2.0])
def test_agrees_with_transformers(walk: Callable[..., list[float]], power: float) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    rates = walk(
        lambda optimizer: optimization.get_polynomial_decay_schedule_with_warmup(optimizer, 10, 100, lr_end=0.05, power=power), 100
    )
    schedule = Warmup(0.1, Polynomial(power, 0.05))
    assert rates == pytest.approx([schedule.value(t / 100) for t in range(101)], abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"power": 0.0}, "power must be finite and > 0, found 0.0"),
        ({"power": math.inf}, "power must be finite and > 0, found inf"),
        ({"floor": -0.1}, r"floor must lie in \[0, 1\], found -0.1"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Polynomial(**fields)


@pytest.mark.parametrize("schedule", [Polynomial(), Polynomial(1e-300), Polynomial(1e300), Polynomial(2.0, 0.1)])
def test_holds_the_contract(schedule: Polynomial) -> None:
    check_schedule(schedule)
