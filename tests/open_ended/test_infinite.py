"""Infinite: three phases, continuous joints, and a constant without end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.open_ended import Hold, Infinite
from outlay.open_ended.infinite import Cooldown
from outlay.testing import check_open_schedule

SHAPES: tuple[Cooldown, ...] = ("cosine", "inverse_root")


def test_the_cosine_by_hand() -> None:
    schedule = Infinite(100.0, 400.0, 0.25)
    assert [schedule.at(n) for n in (0.0, 25.0, 100.0)] == [0.0, 0.25, 1.0]
    # a quarter, a half, three quarters of the cooldown
    assert [schedule.at(n) for n in (200.0, 300.0, 400.0)] == pytest.approx(
        [0.25 + 0.375 * (1 + math.sqrt(0.5)), 0.625, 0.25 + 0.375 * (1 - math.sqrt(0.5))], rel=1e-14
    )
    assert [schedule.at(n) for n in (500.0, 501.0, 1e9, 1e18)] == [0.25] * 4


def test_the_inverse_root_by_hand() -> None:
    # h(x) = 1 / sqrt(1 + 8 x) - 1: h(3 / 8) = -1/2, h(1) = -2/3, so m = 1 + (c - 1) 3/4
    schedule = Infinite(100.0, 400.0, 0.2, "inverse_root", steepness=8.0)
    assert schedule.at(250.0) == pytest.approx(1 - 0.8 * 0.75, rel=1e-14)
    # h(1/8) = 1 / sqrt(2) - 1
    assert schedule.at(150.0) == pytest.approx(1 + (0.2 - 1) * (1 - math.sqrt(0.5)) * 1.5, rel=1e-14)
    assert [schedule.at(n) for n in (50.0, 100.0, 500.0, 1e9)] == [0.5, 1.0, 0.2, 0.2]
    # steeper falls sooner
    assert Infinite(0.0, 10.0, shape="inverse_root", steepness=20.0).at(5.0) < Infinite(0.0, 10.0, shape="inverse_root").at(5.0)


def test_the_default_constant_is_the_papers() -> None:
    """From 3e-4 down to 1.65e-4."""
    assert 3e-4 * Infinite(1.0, 1.0).at(2.0) == pytest.approx(1.65e-4, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("warmup", "cooldown"), [(10.0, 90.0), (1e6, 3e8), (0.1, 0.2)])
def test_is_continuous_at_every_joint(shape: Cooldown, warmup: float, cooldown: float) -> None:
    schedule = Infinite(warmup, cooldown, 0.3, shape)
    for joint, level in ((warmup, 1.0), (warmup + cooldown, 0.3)):
        for n in (math.nextafter(joint, 0.0), joint, math.nextafter(joint, math.inf)):
            assert schedule.at(n) == pytest.approx(level, abs=1e-12)


@given(st.sampled_from(SHAPES), st.floats(0, 1), st.floats(0.01, 1))
def test_falls_between_its_ends(shape: Cooldown, x: float, constant: float) -> None:
    schedule = Infinite(100.0, 400.0, constant, shape)
    value = schedule.at(100.0 + 400.0 * x)
    assert constant - 1e-12 <= value <= 1.0
    assert schedule.at(100.0 + 400.0 * (x + 1) / 2) <= value + 1e-12


@given(st.floats(0, 1e6), st.sampled_from(SHAPES))
def test_without_a_fall_it_is_hold(amount: float, shape: Cooldown) -> None:
    assert Infinite(50.0, 300.0, 1.0, shape).at(amount) == pytest.approx(Hold(50.0).at(amount), abs=1e-15)
    assert Infinite(50.0, 0.0, 1.0, shape).at(amount) == Hold(50.0).at(amount)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("warmup", "cooldown", "constant"), [(10.0, 90.0, 0.55), (0.0, 0.0, 0.1), (0.0, 1e9, 1.0), (3.0, 0.0, 0.5)])
def test_holds_the_contract(shape: Cooldown, warmup: float, cooldown: float, constant: float) -> None:
    check_open_schedule(Infinite(warmup, cooldown, constant, shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup": -1.0}, "warmup must be finite and >= 0, found -1.0"),
        ({"cooldown": math.inf}, "cooldown must be finite and >= 0, found inf"),
        ({"constant": 0.0}, r"constant must lie in \(0, 1\], found 0.0"),
        ({"constant": 1.5}, r"constant must lie in \(0, 1\], found 1.5"),
        ({"shape": "linear"}, "shape must be one of cosine, inverse_root, found 'linear'"),
        ({"steepness": 0.0}, "steepness must be finite and > 0, found 0.0"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Infinite(**({"warmup": 1.0, "cooldown": 1.0} | fields))  # type: ignore[arg-type]
