"""LARS: the length of a step, its limits, and where its peer agrees."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from outlay.optim import Lars, follow
from outlay.testing import check_optimizer


def drawn(count: int, shape: tuple[int, ...] = (3, 4), seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(count)]


def drive(spec: Lars, start: torch.Tensor, steps: list[torch.Tensor], **knobs: float) -> torch.Tensor:
    """The parameter after a step for each gradient."""
    w = nn.Parameter(start.clone())
    optimizer = spec.build([("w", w)])
    for knob, value in knobs.items():
        follow(optimizer, knob, value)
    for gradient in steps:
        w.grad = gradient.clone()
        optimizer.step()
    return w.detach()


START = drawn(1, seed=9)[0]


def test_three_steps_by_the_formula() -> None:
    lr, decay, momentum = 0.02, 0.3, 0.8
    start, steps = torch.tensor([[3.0, -4.0]], dtype=torch.float64), [[1.0, 0.5], [-2.0, 1.0], [0.5, 0.5]]
    got = drive(Lars(), start, [torch.tensor([g], dtype=torch.float64) for g in steps], lr=lr, weight_decay=decay, momentum=momentum)
    w, u = [3.0, -4.0], [0.0, 0.0]
    for g in steps:
        u = [momentum * u[i] + (1 - momentum) * (g[i] + decay * w[i]) for i in range(2)]
        q = math.hypot(*w) / math.hypot(*u)
        w = [w[i] - lr * q * u[i] for i in range(2)]
    assert got[0].tolist() == pytest.approx(w, rel=1e-12)


@given(st.floats(min_value=1e-3, max_value=30), st.floats(min_value=1e-4, max_value=1e4))
def test_a_step_is_as_long_as_the_clipped_norm_says_whatever_the_gradients_scale(scale: float, size: float) -> None:
    start = START * scale
    before = drive(Lars(upper=6.0), start, [g * size for g in drawn(2)], lr=0.1)
    after = drive(Lars(upper=6.0), start, [g * size for g in drawn(3)], lr=0.1)
    assert (after - before).norm().item() == pytest.approx(0.1 * min(before.norm().item(), 6.0), rel=1e-9)
    assert torch.allclose(after, drive(Lars(upper=6.0), start, drawn(3), lr=0.1), rtol=1e-9)


def test_zero_norms_fall_back_to_1() -> None:
    zero = torch.zeros(3, 4, dtype=torch.float64)
    assert torch.allclose(drive(Lars(), zero, drawn(1), lr=0.1), -0.1 * 0.1 * drawn(1)[0], rtol=1e-12)
    assert torch.equal(drive(Lars(), START, [zero], lr=0.1), START)


def test_vectors_are_plain_momentum_and_do_not_decay() -> None:
    start, steps = START[0], drawn(3, (4,))
    w, u = start.clone(), torch.zeros(4, dtype=torch.float64)
    for g in steps:
        u = 0.9 * u + 0.1 * g
        w = w - 0.5 * u
    assert torch.allclose(drive(Lars(), start, steps, lr=0.5, weight_decay=0.4), w, rtol=1e-12)
    moved = drive(Lars(adapt_vectors=True), start, steps[:1], lr=0.1) - start
    assert moved.norm().item() == pytest.approx(0.1 * start.norm().item(), rel=1e-9)


def test_agrees_with_pytorch_optimizer_without_momentum_and_decay() -> None:
    """Theirs is the first form: the ratio of the gradient before the momentum. Without momentum and decay the two are one."""
    package = pytest.importorskip("pytorch_optimizer")
    w = nn.Parameter(START.clone())
    peer = package.LARS([w], lr=0.05, weight_decay=0.0, momentum=0.0, trust_coefficient=1.0)
    for gradient in drawn(6):
        w.grad = gradient.clone()
        peer.step()
    assert torch.allclose(drive(Lars(), START, drawn(6), lr=0.05, weight_decay=0.0, momentum=0.0), w.detach(), rtol=1e-12)


def test_state_bytes_by_hand() -> None:
    assert (Lars().state_bytes({"a": (2, 3), "b": (3,)}), Lars().state_bytes({"a": (2, 3)}, 2)) == (36, 12)


@pytest.mark.parametrize(("fields"), [{"lower": -1.0}, {"lower": 3.0, "upper": 2.0}])
def test_wrong_fields_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="0 <= lower < upper must hold, found"):
        Lars(**fields)


@pytest.mark.parametrize("spec", [Lars(), Lars(adapt_vectors=True, upper=math.inf)])
def test_contract(spec: Lars) -> None:
    check_optimizer(spec)
