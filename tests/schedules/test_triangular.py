"""Triangular: cyclical learning rates and what becomes of their amplitude."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Triangular
from outlay.schedules.triangular import Mode
from outlay.testing import check_schedule


def test_values_by_hand() -> None:
    schedule = Triangular(cycles=2, low=0.2)
    assert [schedule.value(k / 8) for k in range(9)] == pytest.approx([0.2, 0.6, 1.0, 0.6, 0.2, 0.6, 1.0, 0.6, 0.2], rel=1e-12)
    leaning = Triangular(cycles=1, low=0.0, rise=0.2)
    assert [leaning.value(p) for p in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.5, 1.0, 0.5, 0.0], rel=1e-12)


def test_peaks_halve() -> None:
    schedule = Triangular(cycles=3, low=0.2, mode="triangular2")
    assert [schedule.value(p) for p in (1 / 6, 3 / 6, 5 / 6)] == pytest.approx([1.0, 0.6, 0.4], rel=1e-12)


@given(st.floats(min_value=0, max_value=1))
def test_the_amplitude_falls_over_the_budget(p: float) -> None:
    """The excess over the lower bound is end^p of what it is without."""
    plain, falling = Triangular(), Triangular(mode="exp_range", end=0.01)
    assert falling.value(p) - 0.25 == pytest.approx(0.01**p * (plain.value(p) - 0.25), abs=1e-15)
    assert Triangular(mode="exp_range", end=1.0).value(p) == plain.value(p)


@pytest.mark.parametrize(("mode", "gamma"), [("triangular", 1.0), ("triangular2", 1.0), ("exp_range", 0.98)])
@pytest.mark.parametrize(("up", "down"), [(10, 10), (5, 20)])
def test_agrees_with_torch(walk: Callable[..., list[float]], mode: Mode, gamma: float, up: int, down: int) -> None:
    steps = 4 * (up + down)
    rates = walk(
        lambda optimizer: torch.optim.lr_scheduler.CyclicLR(
            optimizer, base_lr=0.1, max_lr=1.0, step_size_up=up, step_size_down=down, mode=mode, gamma=gamma, cycle_momentum=False
        ),
        steps,
    )
    schedule = Triangular(4, 0.1, up / (up + down), mode, gamma**steps)
    assert rates == pytest.approx([schedule.value(t / steps) for t in range(steps + 1)], abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cycles": 0}, "cycles must be >= 1, found 0"),
        ({"low": 1.1}, r"low must lie in \[0, 1\], found 1.1"),
        ({"rise": 0.0}, r"rise must lie in \(0, 1\), found 0.0"),
        ({"mode": "triangular3"}, "mode must be triangular, triangular2 or exp_range, found 'triangular3'"),
        ({"end": 0.0}, r"end must lie in \(0, 1\], found 0.0"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Triangular(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [Triangular(), Triangular(7, 0.0, 5e-324, "triangular2"), Triangular(mode="exp_range")])
def test_holds_the_contract(schedule: Triangular) -> None:
    check_schedule(schedule)
