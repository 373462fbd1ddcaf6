"""Zeroth-order steps: the code of a byte, the gradient in the limit, and machines that stay alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from outlay.optim import ZerothOrder, follow
from outlay.optim.zeroth_order import decode, encode
from outlay.testing import check_optimizer

TARGET = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64)


def machine(spec: ZerothOrder, seed: int = 0, **knobs: float) -> tuple[nn.Parameter, Any]:
    w = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    optimizer: Any = spec.build([("w", w)], seed)
    for knob, value in knobs.items():
        follow(optimizer, knob, value)
    return w, optimizer


def alone(sent: bytes) -> list[bytes]:
    return [sent]


@given(st.floats(min_value=4e-4, max_value=2600), st.sampled_from([8, 16, 32]))
def test_the_code_keeps_sign_and_size(size: float, resolution: int) -> None:
    bound = math.exp(63 / resolution)
    for slope in (size, -size):
        code = encode(slope, resolution)
        assert 0 <= code <= 254
        got = decode(code, resolution)
        assert math.copysign(1, got) == math.copysign(1, slope)
        if 1 / bound <= size <= bound:
            assert abs(got / slope - 1) <= math.exp(0.5 / resolution) - 1 + 1e-12
        else:
            assert abs(got) == pytest.approx(bound if size > bound else 1 / bound)


def test_every_code_comes_back_and_zero_is_zero() -> None:
    assert [encode(decode(code)) for code in range(256)] == list(range(256))
    assert decode(encode(0.0)) == 0.0 and encode(math.nan) == encode(math.inf) == 255 and math.isnan(decode(255))


def test_slope_times_direction_is_the_gradient_on_average() -> None:
    spec, count = ZerothOrder(directions=1, code="float"), 10_000
    total = torch.zeros(2, 3, dtype=torch.float64)
    for seed in range(count):
        w, optimizer = machine(spec, seed, lr=1.0)
        optimizer.explore(distance(w, TARGET), alone, 0)
        total -= w.detach()
    gradient = -2 * TARGET
    assert float((total / count - gradient).norm() / gradient.norm()) < 0.05


def test_one_step_by_the_formula() -> None:
    spec = ZerothOrder(eps=0.01, directions=3, code="float")
    w, optimizer = machine(spec, 5, lr=0.1, weight_decay=0.5)
    w.data.fill_(1.0)

    def loss(at: torch.Tensor) -> float:
        return float((at - TARGET).pow(3).sum())

    directions = [optimizer._direction(w, 1, 0, j) for j in range(3)]
    slopes = [(loss(w.detach() + 0.01 * z) - loss(w.detach() - 0.01 * z)) / 0.02 for z in directions]
    expected = w.detach() * (1 - 0.1 * 0.5) - 0.1 * sum(g * z for g, z in zip(slopes, directions, strict=True)) / 3
    seen = optimizer.explore(lambda: loss(w.detach()), alone, 0)
    assert torch.allclose(w.detach(), expected, rtol=1e-6)
    assert seen == pytest.approx(loss(torch.ones(2, 3, dtype=torch.float64)), rel=0.05)
    # divided by the root of their number, the same slopes move it further
    other, root = machine(ZerothOrder(eps=0.01, directions=3, code="float", scale="root"), 5, lr=0.1)
    same, mean = machine(spec, 5, lr=0.1)
    for parameter, one in ((other, root), (same, mean)):
        one.explore(lambda parameter=parameter: loss(parameter.detach()), alone, 0)  # type: ignore[misc]
    assert torch.allclose(other.detach(), same.detach() * math.sqrt(3), rtol=1e-6)


def distance(w: nn.Parameter, part: torch.Tensor) -> Callable[[], float]:
    return lambda: float((w - part).square().sum())


def noted(told: list[bytes]) -> Callable[[bytes], list[bytes]]:
    def share(sent: bytes) -> list[bytes]:
        told.append(sent)
        return [sent]

    return share


def answered(told: list[bytes]) -> Callable[[bytes], list[bytes]]:
    return lambda sent: told


def test_machines_stay_alike_by_bytes_alone() -> None:
    """Two machines with data of their own exchange a byte a direction and end bit by bit alike, at weights that one alone does not reach."""
    spec = ZerothOrder(eps=0.01, directions=2)
    parts = [TARGET, TARGET + 1.0]
    machines = [machine(spec, 3, lr=0.02) for _ in parts]
    sizes = set()
    for _ in range(40):
        told: list[bytes] = []
        for rank, ((w, optimizer), part) in enumerate(zip(machines, parts, strict=True)):
            # the second half of a step needs everybody's bytes: they are gathered on copies that do not move
            twin, copy = machine(spec, 3, lr=0.0)
            twin.data.copy_(w.data)
            copy.state[twin]["step"] = optimizer.state[w].get("step", torch.zeros(())).clone()
            copy.explore(distance(twin, part), noted(told), rank)
        sizes |= {len(sent) for sent in told}
        for rank, ((w, optimizer), part) in enumerate(zip(machines, parts, strict=True)):
            optimizer.explore(distance(w, part), answered(told), rank)
    (first, _), (second, _) = machines
    assert sizes == {2}
    assert torch.equal(first, second)
    assert float((first.detach() - (TARGET + 0.5)).norm()) < 0.6 * float((TARGET + 0.5).norm())


def test_without_a_copy_weights_come_back_almost() -> None:
    spec = ZerothOrder(exact=False)
    w, optimizer = machine(spec, lr=0.0)
    w.data.copy_(TARGET)
    start = w.detach().clone()
    for _ in range(20):
        optimizer.explore(lambda: float(w.square().sum()), alone, 0)
    assert 0 < float((w.detach() - start).abs().max()) < 1e-6
    with pytest.raises(ValueError, match="several processes drift apart"):
        optimizer.explore(lambda: 0.0, lambda sent: [sent, sent], 0)


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    w, optimizer = machine(ZerothOrder(), lr=0.1)
    assert not math.isfinite(optimizer.explore(lambda: math.inf, alone, 0))
    assert not w.any()


# without the copy a step of rate 0 leaves rounding errors, which the contract does not allow
@pytest.mark.parametrize("spec", [ZerothOrder(), ZerothOrder(code="float", directions=3, scale="root")])
def test_contract(spec: ZerothOrder) -> None:
    check_optimizer(spec)
