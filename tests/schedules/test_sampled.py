"""Sampling rate: the profile is read at given points and held between them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Cosine, Linear, Rex, Sampled
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)


def test_holds_the_value_between_points() -> None:
    schedule = Sampled(Linear(), times=4)
    points = (0.0, 0.1, 0.249, 0.25, 0.3, 0.5, 0.74, 0.75, 0.9, 1.0)
    assert [schedule.value(p) for p in points] == [1.0, 1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_reads_rex_every_tenth_by_default() -> None:
    assert Sampled().value(0.55) == Rex().value(0.5)
    assert Sampled().value(1.0) == Rex().value(0.9)


def test_reads_at_listed_points() -> None:
    schedule = Sampled(Rex(), times=99, at=(0.5, 0.75))
    below, half, three_quarters = Rex().value(0.0), Rex().value(0.5), Rex().value(0.75)
    points = (0.0, 0.49, 0.5, 0.74, 0.75, 1.0)
    assert [schedule.value(p) for p in points] == [below, below, half, half, three_quarters, three_quarters]


@pytest.mark.parametrize("times", [3, 10, 49, 100, 1000])
def test_a_point_opens_its_own_piece_however_it_was_computed(times: int) -> None:
    """k / times * times falls short of k in floating point for some k: 29 / 100 * 100 = 28.999999999999996."""
    schedule = Sampled(Linear(), times)
    assert [schedule.value(k / times) for k in range(times)] == [Linear().value(k / times) for k in range(times)]
    walked, width = 0.0, 1 / times
    for k in range(times):
        assert schedule.value(walked) == Linear().value(k / times), k
        walked += width


@given(st.integers(min_value=1, max_value=500), progress)
def test_takes_the_values_of_the_profile_at_the_points_only(times: int, p: float) -> None:
    schedule = Sampled(Cosine(), times)
    values = [Cosine().value(k / times) for k in range(times)]
    assert schedule.value(p) in values
    exact = min(times - 1, math.floor(p * times))
    if abs(p * times - round(p * times)) > 1e-6:
        assert schedule.value(p) == values[exact]
    assert schedule.value(p) >= Cosine().value(p) - 1e-6  # a falling profile is held high


@given(progress)
def test_sampled_often_it_is_the_profile(p: float) -> None:
    assert Sampled(Rex(), 10**6).value(p) == pytest.approx(Rex().value(p), abs=1e-5)


@given(progress)
def test_sampled_once_it_is_constant(p: float) -> None:
    assert Sampled(Linear(3.0, 0.0), 1).value(p) == 3.0


def test_agrees_with_torch_steps(walk: Callable[..., list[float]]) -> None:
    """A profile 10^(-4 p) read at 30, 60 and 90 of 120 steps falls tenfold each time."""

    class Tenfold:
        def value(self, progress: float) -> float:
            return 10.0 ** (-4.0 * progress)

    rates = walk(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1), 119)
    assert rates == pytest.approx([Sampled(Tenfold(), 4).value(t / 120) for t in range(120)], rel=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"times": 0}, "times must be >= 1, found 0"),
        ({"at": (0.0, 0.5)}, r"every point of at must lie in \(0, 1\), found \(0\.0, 0\.5\)"),
        ({"at": (0.5, 1.0)}, r"every point of at must lie in \(0, 1\)"),
        ({"at": (0.5, math.nan)}, r"every point of at must lie in \(0, 1\)"),
        ({"at": (0.75, 0.5)}, r"the points of at must rise, found \(0\.75, 0\.5\)"),
        ({"at": (0.5, 0.5)}, "the points of at must rise"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampled(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [Sampled(), Sampled(Cosine(), 1), Sampled(Rex(), 7), Sampled(Linear(), 3, (0.3, 0.6, 0.9))])
def test_holds_the_contract(schedule: Sampled) -> None:
    check_schedule(schedule)
