"""Cosine with restarts: m(p) = floor + (1 - floor) (1 + cos(pi x)) / 2 inside each cycle."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Cosine, CosineRestarts, Sequence, Warmup
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)


def test_cycles_double() -> None:
    """10 + 20 + 40 + 80 of 150."""
    schedule = CosineRestarts()
    assert [schedule.value(t / 150) for t in (0, 10, 30, 70)] == [1.0] * 4
    assert [schedule.value(t / 150) for t in (5, 20, 50, 110)] == pytest.approx([0.5] * 4, abs=1e-12)
    assert [schedule.value(t / 150 - 1e-8) for t in (10, 30, 70)] == pytest.approx([0.0] * 3, abs=1e-10)
    assert schedule.value(1.0) == 0.0


def test_the_floor_ends_every_cycle() -> None:
    schedule = CosineRestarts(2, 1.0, floor=0.2)
    assert [schedule.value(p) for p in (0.0, 1 / 6, 0.25, 0.5, 0.75, 1.0)] == pytest.approx([1.0, 0.8, 0.6, 1.0, 0.6, 0.2], abs=1e-12)


@given(progress)
def test_special_cases(p: float) -> None:
    assert CosineRestarts(1, 3.0, 0.1).value(p) == Cosine(0.1).value(p)
    pieces = Sequence((Cosine(0.1),) * 3, (9.0, 3.0, 1.0))
    assert CosineRestarts(3, 1 / 3, 0.1).value(p) == pytest.approx(pieces.value(p), abs=1e-9)


@pytest.mark.parametrize(("first", "growth", "cycles"), [(10, 2, 4), (7, 1, 5), (4, 3, 3)])
def test_agrees_with_torch(walk: Callable[..., list[float]], first: int, growth: int, cycles: int) -> None:
    steps = sum(first * growth**i for i in range(cycles))
    rates = walk(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, first, growth, eta_min=0.1), steps - 1)
    schedule = CosineRestarts(cycles, growth, 0.1)
    assert rates == pytest.approx([schedule.value(t / steps) for t in range(steps)], abs=1e-12)


@pytest.mark.parametrize("cycles", [1, 3])
def test_agrees_with_transformers(walk: Callable[..., list[float]], cycles: int) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    rates = walk(
        lambda optimizer: optimization.get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, 10, 100, num_cycles=cycles), 100
    )
    schedule = Warmup(0.1, CosineRestarts(cycles, 1.0))
    assert rates == pytest.approx([schedule.value(t / 100) for t in range(101)], abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cycles": 0}, "cycles must be >= 1, found 0"),
        ({"growth": 0.0}, "growth must be finite and > 0, found 0.0"),
        ({"growth": math.inf}, "growth must be finite and > 0, found inf"),
        ({"cycles": 30, "growth": 2.0}, "30 cycles with growth 2.0 make one of less than a millionth of the budget"),
        ({"floor": 1.1}, r"floor must lie in \[0, 1\], found 1.1"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CosineRestarts(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [CosineRestarts(), CosineRestarts(1000, 1.0), CosineRestarts(5, 0.5, 0.1), CosineRestarts(2, 1e5)])
def test_holds_the_contract(schedule: CosineRestarts) -> None:
    check_schedule(schedule)
