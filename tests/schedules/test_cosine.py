"""Cosine: m(p) = floor + (1 - floor) (1 + cos(pi p)) / 2."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Cosine, Linear
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)
floors = st.floats(min_value=0, max_value=1)


def test_half_a_wave() -> None:
    values = [Cosine().value(p) for p in (0.0, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0)]
    assert values == pytest.approx([1.0, (2 + math.sqrt(2)) / 4, 3 / 4, 1 / 2, 1 / 4, 0.0], abs=1e-15)
    assert (values[0], values[-1]) == (1.0, 0.0)


def test_the_floor_is_reached_and_scales_the_rest() -> None:
    assert [Cosine(0.2).value(p) for p in (0.0, 1 / 3, 1 / 2, 1.0)] == pytest.approx([1.0, 0.8, 0.6, 0.2], abs=1e-15)
    assert Cosine(0.2).value(1.0) == 0.2
    assert Cosine(1.0).value(0.7) == 1.0


@given(floors, progress)
def test_is_symmetric_about_the_middle(floor: float, p: float) -> None:
    assert Cosine(floor).value(p) + Cosine(floor).value(1.0 - p) == pytest.approx(1.0 + floor, abs=1e-12)


@given(floors, progress, progress)
def test_falls_from_one_to_the_floor(floor: float, p: float, q: float) -> None:
    schedule = Cosine(floor)
    assert floor <= schedule.value(p) <= 1.0
    assert schedule.value(min(p, q)) >= schedule.value(max(p, q)) - 1e-15
    assert (schedule.value(p) - Linear(1.0, floor).value(p)) * (0.5 - p) >= -1e-15  # above the line first, below it after


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_agrees_with_torch(walk: Callable[..., list[float]], floor: float) -> None:
    rates = walk(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=floor), 40)
    assert rates == pytest.approx([Cosine(floor).value(t / 40) for t in range(41)], abs=1e-12)


@pytest.mark.parametrize("floor", [-0.1, 1.1, math.nan])
def test_refuses_a_floor_outside_the_unit_interval(floor: float) -> None:
    with pytest.raises(ValueError, match=r"floor must lie in \[0, 1\], found"):
        Cosine(floor)


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_holds_the_contract(floor: float) -> None:
    check_schedule(Cosine(floor))
