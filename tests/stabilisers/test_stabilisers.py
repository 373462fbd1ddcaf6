"""Stabilisers: whose gradient passes, with what weight, and the special cases that one class holds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.stabilisers import Clip, Stabiliser, Tapered, Truncated, Unmasked
from outlay.testing import check_stabiliser


def moved(stabiliser: Stabiliser, ratio: float, advantage: float) -> tuple[float, float]:
    """Return what is maximised and its gradient with respect to log r."""
    log = torch.tensor(math.log(ratio), dtype=torch.float64, requires_grad=True)
    found = stabiliser.surrogate(log.exp(), torch.tensor(advantage, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(found, log)
    return float(found.detach()), float(gradient)


def test_the_clip_by_hand() -> None:
    clip = Clip(0.2, 0.3)
    for ratio, advantage, value, gradient in (
        (1.2, 2.0, 2.4, 2.4), (1.3, 2.0, 2.6, 2.6), (1.31, 2.0, 2.6, 0.0), (0.1, 2.0, 0.2, 0.2),
        (0.9, -2.0, -1.8, -1.8), (0.79, -2.0, -1.6, 0.0), (5.0, -2.0, -10.0, -10.0), (3.0, 0.0, 0.0, 0.0),
    ):  # fmt: skip
        assert moved(clip, ratio, advantage) == pytest.approx((value, gradient), abs=1e-9), (ratio, advantage)


@given(st.floats(0.01, 10), st.sampled_from([-1.5, -0.1, 0.1, 2.0]), st.floats(0, 1), st.floats(0, 2))
def test_the_clips_gradient_is_0_exactly_where_it_should_be(ratio: float, advantage: float, low: float, high: float) -> None:
    _, gradient = moved(Clip(low, high), ratio, advantage)
    r = math.exp(math.log(ratio))
    if min(abs(r - (1 - low)), abs(r - (1 + high))) < 1e-9:
        return  # at the very edge either side is right
    stopped = (advantage > 0 and r > 1 + high) or (advantage < 0 and r < 1 - low)
    assert gradient == (0.0 if stopped else pytest.approx(r * advantage))


def test_the_dual_clip_bounds_bad_answers_that_became_likely() -> None:
    clip = Clip(0.2, 0.2, dual=3.0)
    assert moved(clip, 2.9, -2.0) == pytest.approx((-5.8, -5.8))
    assert moved(clip, 3.1, -2.0) == pytest.approx((-6.0, 0.0))
    assert moved(clip, 0.5, -2.0) == pytest.approx((-1.6, 0.0))
    assert moved(clip, 9.0, 2.0) == pytest.approx((2.4, 0.0))
    active = clip.active(torch.tensor([2.9, 3.1, 0.5, 9.0, 9.0]), torch.tensor([-2.0, -2.0, -2.0, 2.0, 0.0]))
    assert active.tolist() == [True, False, False, False, True]


def test_without_a_clip_every_ratio_counts() -> None:
    assert moved(Unmasked(), 7.0, -2.0) == pytest.approx((-14.0, -14.0))


def test_truncated_weights_by_hand() -> None:
    for ratio, weight in ((0.5, 0.5), (2.0, 2.0), (4.0, 3.0), (100.0, 3.0)):
        value, gradient = moved(Truncated(cap=3.0), ratio, -2.0)
        assert gradient == pytest.approx(-2.0 * weight)
        # the integral of the weight over r, from 0
        assert value == pytest.approx(-2.0 * (ratio if ratio <= 3 else 3 + 3 * math.log(ratio / 3)))
    assert moved(Truncated(floor=0.4, cap=3.0), 0.1, 1.0)[1] == pytest.approx(0.4)


def test_truncation_keeps_teaching_where_the_clip_stops() -> None:
    assert moved(Clip(0.2, 0.2), 1.5, 1.0)[1] == 0.0
    assert moved(Truncated(cap=1.2), 1.5, 1.0)[1] == pytest.approx(1.2)


@pytest.mark.parametrize("ratio", [1e-6, 0.3, 1.0, 1.7, 50.0])
def test_tapering_and_its_special_cases(ratio: float) -> None:
    clipped = min(ratio, 1.0)
    for stabiliser, good, bad in (
        (Tapered(), 1.0, clipped),
        (Tapered((1, 1), (1, 1)), 1.0, 1.0),
        (Tapered((1, 1), (0, 0)), 1.0, 0.0),
        (Tapered((0, 1), (0, 1)), clipped, clipped),
        (Tapered((0, math.inf), (0, math.inf)), ratio, ratio),
    ):
        assert moved(stabiliser, ratio, 0.5)[1] == pytest.approx(0.5 * good), stabiliser
        assert moved(stabiliser, ratio, -0.5)[1] == pytest.approx(-0.5 * bad), stabiliser


@given(st.floats(1e-8, 1e6), st.floats(0, 2), st.floats(0, 3))
def test_the_gradient_is_that_of_the_value(ratio: float, low: float, width: float) -> None:
    bounds = (low, low + width)
    for stabiliser, advantage in ((Tapered(bad=bounds), -1.0), (Tapered(good=bounds), 1.0), (Truncated(*bounds), -1.0)):
        near = [moved(stabiliser, ratio * math.exp(side), advantage)[0] for side in (1e-4, -1e-4)]
        value, gradient = moved(stabiliser, ratio, advantage)
        slack = 1e-6 + 2e-4 * max(1, abs(gradient), abs(value))
        assert abs((near[0] - near[1]) / 2e-4 - gradient) <= slack


def test_what_is_minimised_of_a_bad_answer_is_bounded_below() -> None:
    # f(z) = z up to 1 and 1 + log z beyond, >= 0: no answer can be pushed away for ever
    for ratio in (1e-9, 0.2, 1.0, 3.0, 1e8):
        assert -moved(Tapered(), ratio, -1.0)[0] == pytest.approx(ratio if ratio <= 1 else 1 + math.log(ratio))


@pytest.mark.parametrize(
    "stabiliser",
    [Unmasked(), Clip(), Clip(0.2, 0.28), Clip(0.2, 0.28, 10.0), Clip(1.0, 9.0), Clip(3e-4, 4e-4), Truncated(), Truncated(0.5, 2.0), Tapered(),
     Tapered((1, 1), (0, 0)), Tapered((0, 1), (0, 1)), Tapered((0, math.inf), (0, math.inf))],
    ids=str,
)  # fmt: skip
def test_contract(stabiliser: Stabiliser) -> None:
    check_stabiliser(stabiliser)


def test_what_is_refused() -> None:
    for wrong, message in (
        (lambda: Clip(low=1.5), r"low must lie in \[0, 1\], found 1.5"),
        (lambda: Clip(high=-1), "high must be >= 0"),
        (lambda: Clip(dual=1.1), "dual must be > 1 \\+ high, found 1.1 and high 0.2"),
        (lambda: Truncated(2.0, 1.0), "floor and cap must satisfy"),
        (lambda: Tapered(bad=(-1, 1)), "bad must satisfy"),
        (lambda: Tapered(good=(math.inf, math.inf)), "good must satisfy"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
