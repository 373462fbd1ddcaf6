"""Inverse square root: by hand, and step by step as transformers has it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.open_ended import InverseRoot
from outlay.testing import check_open_schedule


def test_by_hand() -> None:
    schedule = InverseRoot(100.0, 300.0)
    assert [schedule.at(n) for n in (0.0, 50.0, 100.0, 400.0, 1000.0, 2500.0)] == pytest.approx([0, 0.5, 1, math.sqrt(0.5), 0.5, 1 / 3])
    assert InverseRoot(0.0).at(10_000.0) == pytest.approx(math.sqrt(0.5), rel=1e-15)
    assert InverseRoot(0.0).at(0.0) == 1.0


@given(st.floats(1, 1e6), st.floats(0, 1e12))
def test_is_the_transformers_own_by_default(warmup: float, amount: float) -> None:
    expected = min(amount / warmup, math.sqrt(warmup / amount)) if amount > 0 else 0.0
    assert InverseRoot(warmup).at(amount) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("warmup", "timescale"), [(10, None), (10, 40), (0, None), (0, 3), (60, 7)])
def test_agrees_with_transformers(warmup: int, timescale: int | None) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = optimization.get_inverse_sqrt_schedule(optimizer, num_warmup_steps=warmup, timescale=timescale)
    schedule = InverseRoot(float(warmup), timescale)
    for step in range(200):
        assert schedule.at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-14)
        optimizer.step()
        peer.step()


@pytest.mark.parametrize("schedule", [InverseRoot(), InverseRoot(0.0), InverseRoot(3.0, 5.0), InverseRoot(0.0, 1e-9)])
def test_holds_the_contract(schedule: InverseRoot) -> None:
    check_open_schedule(schedule)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup": -1.0}, "warmup must be finite and >= 0, found -1.0"),
        ({"timescale": 0.0}, "timescale must be finite and > 0, or None, found 0.0"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InverseRoot(**fields)
