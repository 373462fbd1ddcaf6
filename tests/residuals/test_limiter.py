"""The limiter of growth: its bound, where it begins, and what it does not mistake for a beginning."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.layout import State
from outlay.residuals.limiter import GAMMA, check_gamma, limited, limiter_layout

BESIDE = torch.ones(3, dtype=torch.float64)
DIRECTION = torch.tensor([[0.6, 0.0], [0.0, -0.8]], dtype=torch.float64)


def fresh() -> State:
    return {"length": torch.zeros((), dtype=torch.float32)}


def lengths(wanted: list[float], gamma: float = GAMMA) -> list[float]:
    """How long contributions of these lengths are after the limiter, one after the other."""
    state = fresh()
    return [float(limited(state, DIRECTION * each, gamma, BESIDE).norm()) for each in wanted]


@given(st.lists(st.floats(min_value=1e-3, max_value=1e6), min_size=1, max_size=12), st.floats(min_value=1, max_value=3))
def test_every_length_is_the_wanted_one_or_gamma_times_the_last(wanted: list[float], gamma: float) -> None:
    got, before = lengths(wanted, gamma), None
    for seen, want in zip(got, wanted, strict=True):
        assert seen == pytest.approx(want if before is None else min(want, gamma * before), rel=1e-6)
        before = seen


def test_the_direction_stays() -> None:
    state = fresh()
    limited(state, DIRECTION.clone(), GAMMA, BESIDE)
    shortened = limited(state, 50 * DIRECTION, GAMMA, BESIDE)
    assert torch.allclose(shortened, GAMMA * DIRECTION, rtol=1e-6)


def test_zeros_and_rounding_are_no_beginning() -> None:
    # float64: what is shorter than about 1.5e-8 of the direction's length counts as rounding
    assert lengths([0.0, 1e-9, 5.0, 100.0]) == pytest.approx([0.0, 1e-9, 5.0, 5.05], rel=1e-6)
    # an actual first length, however short, is one
    assert lengths([1e-6, 5.0]) == pytest.approx([1e-6, 1.01e-6], rel=1e-6)


def test_a_zero_between_does_not_begin_anew() -> None:
    assert lengths([2.0, 0.0, 9.0, 9.0]) == pytest.approx([2.0, 0.0, 2.02, 2.0402], rel=1e-6)


def test_a_limited_length_that_is_short_beside_a_grown_direction_still_grows() -> None:
    state = fresh()
    limited(state, DIRECTION.clone(), GAMMA, BESIDE)
    for step in range(1, 4):
        got = limited(state, 1e12 * DIRECTION, GAMMA, 1e10 * BESIDE)
        assert float(got.norm()) == pytest.approx(GAMMA**step, rel=1e-6)


def test_without_a_limit_nothing_is_kept_or_changed() -> None:
    assert limiter_layout(None) == {}
    assert torch.equal(limited({}, 7 * DIRECTION, None, BESIDE), 7 * DIRECTION)
    assert [(slot.shape, slot.dtype) for slot in limiter_layout(GAMMA).values()] == [((), torch.float32)]


def test_a_limit_that_forces_shrinking_is_refused() -> None:
    check_gamma(1.0)
    with pytest.raises(ValueError, match=r"gamma must be >= 1, or None for no limit, found 0\.9"):
        check_gamma(0.9)
