"""Scaled gradients: what they are parallel to, how long they are, and that the order of root and limiter is free."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from small_splits import drawn, split

from outlay.residuals import ChannelScaled, Split
from outlay.testing import check_residual


def unlifted(given: Split) -> Split:
    """The same with a lift that must not be asked for."""

    def lift(r: torch.Tensor) -> torch.Tensor:
        raise AssertionError("asked to lift")

    return dataclasses.replace(given, lift=lift)


def fresh() -> dict[str, torch.Tensor]:
    return {"length": torch.zeros((), dtype=torch.float32)}


def test_rows_are_the_gradients_and_as_long_as_the_rule_makes_its_sketch() -> None:
    given = unlifted(split(drawn(5, 4)))
    got = ChannelScaled(scale=9.0, gamma=None).update({}, given)
    for i in range(5):
        s = float(given.direction.raw[i].norm() / given.small[i].norm())
        assert torch.allclose(got[i], 0.7 * 3.0 * s * given.gradient[i], rtol=1e-7)


def test_one_factor_a_tensor() -> None:
    given = unlifted(split(drawn(5, 4)))
    got = ChannelScaled("tensor", 128.0, gamma=None).update({}, given)
    s = float(given.direction.raw.norm() / given.small.norm())
    assert torch.allclose(got, 0.7 * math.sqrt(128) * s * given.gradient, rtol=1e-7)


def test_root_and_limiter_may_be_exchanged() -> None:
    for granularity in ("channel", "tensor"):
        first, last = fresh(), fresh()
        for step in range(6):
            given = split(drawn(5, 4, seed=step) * 10.0 ** (step % 3), seed=step + 50)
            one = ChannelScaled("tensor" if granularity == "tensor" else "channel", 100.0, True).update(first, given)
            other = ChannelScaled("tensor" if granularity == "tensor" else "channel", 100.0, False).update(last, given)
            assert torch.allclose(one, other, rtol=1e-5)
        assert float(first["length"]) == pytest.approx(10 * float(last["length"]), rel=1e-5)


def test_growth_is_limited() -> None:
    state, rule = fresh(), ChannelScaled()
    raw = drawn(5, 2, seed=1)
    small = rule.update(state, split(drawn(5, 4), raw=raw)).norm()
    large = rule.update(state, split(drawn(5, 4), raw=100 * raw)).norm()
    assert float(large / small) == pytest.approx(1.01, rel=1e-6)


def test_ranges_and_contract() -> None:
    with pytest.raises(ValueError, match=r"scale must be > 0, found -1"):
        ChannelScaled(scale=-1.0)
    with pytest.raises(ValueError, match=r"gamma must be >= 1"):
        ChannelScaled(gamma=0.0)
    for rule in (ChannelScaled(), ChannelScaled("tensor", 128.0, True), ChannelScaled(gamma=None)):
        check_residual(rule)
