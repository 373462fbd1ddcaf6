"""The KL coefficient that follows a target: its recursion by hand, its bounds, and the controller contract."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.controllers import AdaptiveKl
from outlay.testing import check_controller, record


def after(controller: AdaptiveKl, seen: list[float]) -> float:
    for step, value in enumerate(seen, start=1):
        controller.observe(record(step, 1.0, metrics={"kl": value}))
    return controller.value(0.5)


def test_by_hand() -> None:
    # errors .1, clipped .2, clipped -.2, 0
    assert after(AdaptiveKl(target=2.0), [2.2, 9.0, 0.1, 2.0]) == pytest.approx(1.01 * 1.02 * 0.98)
    assert after(AdaptiveKl(target=2.0, rate=0.5, clip=1.0), [1.0]) == pytest.approx(0.75)


@given(st.lists(st.floats(0, 100), max_size=50))
def test_it_never_changes_faster_than_rate_times_clip(seen: list[float]) -> None:
    controller, before = AdaptiveKl(target=1.0), 1.0
    for value in seen:
        now = after(controller, [value])
        assert 0.98 - 1e-12 <= now / before <= 1.02 + 1e-12
        assert (now > before) == (value > 1.0) or value == 1.0 or abs(value - 1) < 1e-12
        before = now


def test_it_finds_the_coefficient_that_holds_the_target() -> None:
    # a policy whose distance is 1 / coefficient
    controller = AdaptiveKl(target=0.25)
    for step in range(2000):
        controller.observe(record(step + 1, 1.0, metrics={"kl": 1.0 / controller.value(0.0)}))
    assert controller.value(0.0) == pytest.approx(4.0, rel=1e-3)


def test_bounds_and_what_is_passed_over() -> None:
    assert after(AdaptiveKl(target=1.0, maximum=1.03), [9.0] * 10) == 1.03
    assert after(AdaptiveKl(target=1.0, minimum=0.9), [0.0] * 100) == 0.9
    controller = AdaptiveKl(target=1.0)
    controller.observe(record(1, 5.0))
    assert after(controller, [math.nan, math.inf]) == 1.0


def test_contract() -> None:
    values = check_controller(
        lambda: AdaptiveKl(target=1.0), [record(i + 1, 1.0, metrics={"kl": 2.0 if i % 3 else 0.5}) for i in range(20)]
    )
    assert len(set(values)) > 5


def test_what_is_refused() -> None:
    for wrong, message in (
        (lambda: AdaptiveKl(target=0), "target must be > 0, found 0"), (lambda: AdaptiveKl(rate=2), "rate must lie in"),
        (lambda: AdaptiveKl(clip=0), "clip must be > 0"), (lambda: AdaptiveKl(minimum=2, maximum=1), "minimum and maximum must satisfy"),
        (lambda: AdaptiveKl(rate=1, clip=1), "rate times clip must be < 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()
