"""Warm-up: a linear rise, then the wrapped schedule over what is left."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Constant, Cosine, Linear, Rex, Sequence, Warmup, WarmupStableDecay
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)
fractions = st.floats(min_value=0.01, max_value=0.99)


def test_the_rise_and_what_follows() -> None:
    schedule = Warmup(0.25, Rex())
    assert [schedule.value(p) for p in (0.0, 0.125, 0.25)] == [0.0, 0.5, 1.0]
    assert schedule.value(0.625) == pytest.approx(2 / 3, rel=1e-15)  # the middle of what is left
    assert schedule.value(0.8125) == pytest.approx(0.4, rel=1e-15)
    assert schedule.value(1.0) == 0.0


def test_initial_lifts_the_start() -> None:
    schedule = Warmup(0.5, Constant(), initial=0.2)
    assert [schedule.value(p) for p in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([0.2, 0.6, 1.0, 1.0], rel=1e-15)
    assert Warmup(0.5, Linear(), initial=1.0).value(0.3) == 1.0


def test_rises_to_the_first_value_of_what_follows() -> None:
    schedule = Warmup(0.5, Linear(4.0, 0.0), initial=0.5)
    assert [schedule.value(p) for p in (0.0, 0.25, 0.5, 0.75)] == [2.0, 3.0, 4.0, 2.0]


@given(
    fractions, st.floats(min_value=0, max_value=1), st.sampled_from([Rex(), Cosine(0.1), Linear(3.0, 1.0), WarmupStableDecay()]), progress
)
def test_formula(fraction: float, initial: float, then: Linear, p: float) -> None:
    schedule = Warmup(fraction, then, initial)
    assert schedule.value(0.0) == pytest.approx(initial * then.value(0.0), rel=1e-15)
    assert schedule.value(fraction) == then.value(0.0)
    assert schedule.value(1.0) == then.value(1.0)
    assert schedule.value(fraction * (1 - 1e-12)) == pytest.approx(then.value(0.0), abs=1e-9)
    middle = fraction + (1 - fraction) * p
    assert schedule.value(min(1.0, middle)) == pytest.approx(then.value(p), abs=1e-9)
    assert schedule.value(fraction * p * (1 - 1e-15)) == pytest.approx((initial + (1 - initial) * p) * then.value(0.0), abs=1e-12)


@given(progress)
def test_no_warm_up_is_the_schedule_itself(p: float) -> None:
    assert Warmup(0.0, Rex(0.3, 0.1)).value(p) == Rex(0.3, 0.1).value(p)


@given(progress)
def test_wraps_what_wraps(p: float) -> None:
    assert Warmup(0.5, Warmup(0.5, Constant(), initial=1.0)).value(p) == pytest.approx(min(1.0, 2 * p), abs=1e-15)


@pytest.mark.parametrize(
    ("peer", "extra", "then"),
    [
        ("get_linear_schedule_with_warmup", {}, Linear()),
        ("get_cosine_schedule_with_warmup", {}, Cosine()),
        ("get_cosine_with_min_lr_schedule_with_warmup", {"min_lr_rate": 0.1}, Cosine(0.1)),
        ("get_cosine_with_hard_restarts_schedule_with_warmup", {"num_cycles": 4}, Sequence((Cosine(),) * 4)),
    ],
)
@pytest.mark.parametrize("warmup", [0, 16])
def test_agrees_with_transformers(walk: Callable[..., list[float]], peer: str, extra: dict[str, float], then: Linear, warmup: int) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    steps = 64 + warmup
    rates = walk(
        lambda optimizer: getattr(optimization, peer)(optimizer, num_warmup_steps=warmup, num_training_steps=steps, **extra), steps
    )
    schedule = Warmup(warmup / steps, then)
    assert rates == pytest.approx([schedule.value(t / steps) for t in range(steps + 1)], abs=1e-12)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, math.nan])
def test_refuses_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"fraction must lie in \[0, 1\), found {fraction}"):
        Warmup(fraction)


@pytest.mark.parametrize("initial", [-0.1, 1.1, math.nan])
def test_refuses_initial(initial: float) -> None:
    with pytest.raises(ValueError, match=rf"initial must lie in \[0, 1\], found {initial}"):
        Warmup(initial=initial)


@pytest.mark.parametrize("schedule", [Warmup(), Warmup(0.0), Warmup(0.999, Cosine(0.1), 0.3), Warmup(0.1, WarmupStableDecay())])
def test_holds_the_contract(schedule: Warmup) -> None:
    check_schedule(schedule)
