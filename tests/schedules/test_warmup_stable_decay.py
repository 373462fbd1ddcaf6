"""Warm-up, stable, decay: the three pieces, their boundaries and special cases."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Constant, Cosine, Linear, Warmup, WarmupStableDecay
from outlay.schedules.warmup_stable_decay import TAILS, Shape
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)
shapes = st.sampled_from([shape for shape in TAILS if shape != "inverse_linear"])

#: the middle of the tail, worked by hand
MIDDLE: dict[Shape, float] = {
    "linear": 1 / 2, "one_minus_sqrt": 1 - math.sqrt(1 / 2), "one_minus_square": 3 / 4, "cosine": 1 / 2, "exponential": 1 / 32,
}  # fmt: skip
#: a quarter into the tail
QUARTER: dict[Shape, float] = {
    "linear": 3 / 4, "one_minus_sqrt": 1 / 2, "one_minus_square": 15 / 16, "cosine": (2 + math.sqrt(2)) / 4, "exponential": 0.5**2.5,
}  # fmt: skip
#: the tail's end
END: dict[Shape, float] = {"linear": 0.0, "one_minus_sqrt": 0.0, "one_minus_square": 0.0, "cosine": 0.0, "exponential": 1 / 1024}
#: tails that go to floor + (1 - floor) f(x) with an f of their own; all but inverse_linear
SHAPES = list(END)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_the_three_pieces(shape: Shape, floor: float) -> None:
    schedule = WarmupStableDecay(warmup=0.25, decay=0.5, shape=shape, floor=floor)
    rise = [schedule.value(p) for p in (0.0, 0.0625, 0.125, 0.25)]
    assert rise == [0.0, 0.25, 0.5, 1.0]  # the floor is the tail's
    assert [schedule.value(p) for p in (0.3, 0.5)] == [1.0, 1.0]
    tail = [schedule.value(p) for p in (0.625, 0.75, 1.0)]
    assert tail == pytest.approx([floor + (1 - floor) * f[shape] for f in (QUARTER, MIDDLE, END)], rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("shape", TAILS)
def test_is_continuous_at_both_boundaries(shape: Shape) -> None:
    schedule = WarmupStableDecay(0.1, 0.3, shape, floor=0.1)
    for boundary, slack in ((0.1, 1e-10), (0.7, 1e-5)):  # one_minus_sqrt leaves the peak with a vertical tangent
        assert schedule.value(boundary) == pytest.approx(1.0, abs=1e-7)
        assert schedule.value(boundary - 1e-12) == pytest.approx(1.0, abs=slack)
        assert schedule.value(boundary + 1e-12) == pytest.approx(1.0, abs=slack)


@given(
    st.floats(min_value=0.01, max_value=0.5),
    st.floats(min_value=0.01, max_value=0.5),
    shapes,
    st.floats(min_value=0, max_value=1),
    progress,
)
def test_rises_stands_and_falls_to_the_floor(warmup: float, decay: float, shape: Shape, floor: float, p: float) -> None:
    schedule = WarmupStableDecay(warmup, decay, shape, floor)
    value = schedule.value(p)
    if p < warmup:
        assert value == p / warmup
    elif p <= 1 - decay:
        assert value == 1.0
    else:
        assert floor <= value <= 1.0
        assert value <= schedule.value((p + 1 - decay) / 2) + 1e-15
    assert schedule.value(1.0) == pytest.approx(floor + (1 - floor) * END[shape], abs=1e-12)


@given(progress)
def test_special_cases(p: float) -> None:
    assert WarmupStableDecay(0.0, 1.0, "linear").value(p) == pytest.approx(Linear().value(p), abs=1e-15)
    assert WarmupStableDecay(0.0, 1.0, "cosine", 0.1).value(p) == pytest.approx(Cosine(0.1).value(p), abs=1e-15)
    assert WarmupStableDecay(0.25, 0.75, "cosine").value(p) == pytest.approx(Warmup(0.25, Cosine()).value(p), abs=1e-14)
    assert WarmupStableDecay(0.2, 0.5, "linear", floor=1.0).value(p) == pytest.approx(Warmup(0.2, Constant()).value(p), abs=1e-15)


@given(st.floats(min_value=0, max_value=0.9), shapes, shapes)
def test_budgets_share_their_trunk(p: float, one: Shape, other: Shape) -> None:
    """Before the tail nothing of it is felt: any tail may be branched from any trunk."""
    trunk = WarmupStableDecay(0.05, 0.1, one).value(p)
    assert trunk == WarmupStableDecay(0.05, 0.05, other, 0.5).value(p)


@pytest.mark.parametrize(("shape", "name"), [("linear", "linear"), ("cosine", "cosine"), ("one_minus_sqrt", "1-sqrt")])
@pytest.mark.parametrize(("warmup", "floor"), [(10, 0.0), (0, 0.2)])  # the peer applies its floor to the rise as well
def test_agrees_with_transformers(walk: Callable[..., list[float]], shape: Shape, name: str, warmup: int, floor: float) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    rates = walk(
        lambda optimizer: optimization.get_wsd_schedule(
            optimizer, num_warmup_steps=warmup, num_decay_steps=25, num_training_steps=100, decay_type=name, min_lr_ratio=floor
        ),
        100,
    )
    schedule = WarmupStableDecay(warmup / 100, 0.25, shape, floor)
    assert rates == pytest.approx([schedule.value(t / 100) for t in range(101)], abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "name"), [("linear", "linear"), ("cosine", "cosine"), ("one_minus_sqrt", "1-sqrt"), ("one_minus_square", "1-square")]
)
def test_agrees_with_pytorch_optimizer(walk: Callable[..., list[float]], shape: Shape, name: str) -> None:
    """Without a floor: the peer applies its own to the cosine alone and lets the other tails fall through it to zero."""
    peer = pytest.importorskip("pytorch_optimizer")
    rates = walk(lambda optimizer: peer.get_wsd_schedule(optimizer, 10, 65, 25, cooldown_type=name), 100)
    schedule = WarmupStableDecay(0.1, 0.25, shape)
    assert rates == pytest.approx([schedule.value(t / 100) for t in range(101)], abs=1e-12)


@given(st.floats(min_value=0.001, max_value=1), progress)
def test_the_inverse_linear_tail_is_straight_in_its_reciprocal(floor: float, x: float) -> None:
    schedule = WarmupStableDecay(0.0, 1.0, "inverse_linear", floor)
    assert 1 / schedule.value(x) == pytest.approx(1 + (1 / floor - 1) * x, rel=1e-12)
    assert schedule.value(0.5) == pytest.approx(2 * floor / (1 + floor), rel=1e-12)  # the harmonic mean of the ends
    assert (schedule.value(0.0), schedule.value(1.0)) == (1.0, pytest.approx(floor, rel=1e-12))


def test_the_half_life_is_a_share_of_the_tail() -> None:
    schedule = WarmupStableDecay(0.0, 0.5, "exponential", floor=0.2, half_life=0.25)
    assert [schedule.value(p) for p in (0.5, 0.625, 0.75, 1.0)] == pytest.approx([0.2 + 0.8 * f for f in (1, 1 / 2, 1 / 4, 1 / 16)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup": 1.0}, r"warmup must lie in \[0, 1\), found 1.0"),
        ({"warmup": -0.1}, r"warmup must lie in \[0, 1\), found -0.1"),
        ({"decay": 0.0}, r"decay must lie in \(0, 1\], found 0.0"),
        ({"decay": 1.1}, r"decay must lie in \(0, 1\], found 1.1"),
        ({"warmup": 0.6, "decay": 0.5}, r"warmup \+ decay must be at most 1, found 0.6 \+ 0.5"),
        ({"shape": "sqrt"}, "shape must be one of linear, one_minus_sqrt, one_minus_square, cosine, inverse_linear, exponential, found"),
        ({"shape": "inverse_linear"}, "the tail inverse_linear needs a floor > 0, found 0.0"),
        ({"half_life": 0.0}, "half_life must be finite and > 0"),
        ({"half_life": math.nan}, "half_life must be finite and > 0"),
        ({"floor": 1.5}, r"floor must lie in \[0, 1\], found 1.5"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WarmupStableDecay(**fields)  # type: ignore[arg-type]


def test_the_whole_budget_may_be_rise_and_tail() -> None:
    assert WarmupStableDecay(0.9, 0.1, "linear").value(0.45) == 0.5
    assert WarmupStableDecay(0.7, 0.3).value(0.7) == pytest.approx(1.0, abs=1e-7)
    rounded_up = math.nextafter(0.9, 1.0)
    assert rounded_up + 0.1 > 1.0
    assert WarmupStableDecay(rounded_up, 0.1, "linear").value(0.95) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_never_passes_below_its_floor(shape: Shape) -> None:
    """(1 - (1 - decay)) / decay may come out a little above 1."""
    for decay in (k / 100 for k in range(1, 101)):
        assert WarmupStableDecay(0.0, decay, shape, floor=0.0).value(1.0) >= 0.0


@pytest.mark.parametrize("shape", TAILS)
@pytest.mark.parametrize(("warmup", "decay", "floor"), [(0.01, 0.1, 5e-324), (0.0, 1.0, 0.1), (0.9, 0.1, 0.3)])
def test_holds_the_contract(shape: Shape, warmup: float, decay: float, floor: float) -> None:
    check_schedule(WarmupStableDecay(warmup, decay, shape, floor))
