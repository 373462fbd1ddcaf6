"""WSDC: rise, peak, decay, and constant where the decay ended."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import WarmupStableDecay, Wsdc
from outlay.schedules.warmup_stable_decay import TAILS, Shape
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)


def test_the_four_pieces() -> None:
    schedule = Wsdc(warmup=0.1, decay=0.2, tail=0.3, shape="linear", floor=0.2)
    values = [schedule.value(p) for p in (0.0, 0.05, 0.1, 0.3, 0.5, 0.6, 0.7, 0.85, 1.0)]
    assert values == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0, 0.6, 0.2, 0.2, 0.2], rel=1e-12)


@given(st.sampled_from(list(TAILS)), progress)
def test_without_a_tail_it_is_wsd(shape: Shape, p: float) -> None:
    assert Wsdc(0.05, 0.2, 0.0, shape, 0.1, 0.3).value(p) == WarmupStableDecay(0.05, 0.2, shape, 0.1, 0.3).value(p)


@given(st.sampled_from(list(TAILS)), st.floats(min_value=0, max_value=0.6), progress)
def test_before_the_tail_it_is_wsd_over_what_is_left(shape: Shape, tail: float, p: float) -> None:
    rest = 1 - tail
    wsd = WarmupStableDecay(0.1 / rest, 0.2 / rest, shape, 0.1)
    assert Wsdc(0.1, 0.2, tail, shape).value(p * rest) == pytest.approx(wsd.value(p), abs=1e-6)


@given(st.floats(min_value=0, max_value=1))
def test_the_tail_holds_what_the_decay_came_down_to(x: float) -> None:
    """The exponential does not reach its floor, and the tail does not jump there."""
    schedule = Wsdc(shape="exponential", half_life=0.5, floor=0.2, tail=0.4)
    assert schedule.value(0.6 + 0.4 * x) == pytest.approx(0.2 + 0.8 / 4, rel=1e-9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup": 1.0}, r"warmup must lie in \[0, 1\), found 1.0"),
        ({"decay": 0.0}, r"decay must lie in \(0, 1\], found 0.0"),
        ({"tail": 1.0}, r"tail must lie in \[0, 1\), found 1.0"),
        ({"tail": 0.95}, r"warmup \+ decay \+ tail must be at most 1, found 0.01 \+ 0.1 \+ 0.95"),
        ({"shape": "sqrt"}, "shape must be one of linear, .*, found 'sqrt'"),
        ({"floor": math.nan}, r"floor must lie in \[0, 1\], found nan"),
        ({"shape": "inverse_linear", "floor": 0.0}, "the tail inverse_linear needs a floor > 0, found 0.0"),
        ({"half_life": 0.0}, "half_life must be finite and > 0"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wsdc(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", TAILS)
@pytest.mark.parametrize("tail", [0.0, 0.5, 0.89])
def test_holds_the_contract(shape: Shape, tail: float) -> None:
    check_schedule(Wsdc(tail=tail, shape=shape))
