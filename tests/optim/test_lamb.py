"""LAMB: the length of a step, what it does not depend on, its limits, and its peers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from outlay.optim import Lamb, follow
from outlay.optim.lamb import trust_ratio
from outlay.testing import check_optimizer

Drawn = list[torch.Tensor]


def gradients(count: int, shape: tuple[int, ...] = (3, 4), seed: int = 0) -> Drawn:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(count)]


def drive(spec: Any, start: torch.Tensor, steps: Drawn, name: str = "w", **knobs: float) -> torch.Tensor:
    """The parameter after a step for each gradient."""
    w = nn.Parameter(start.clone())
    optimizer = spec.build([(name, w)])
    for knob, value in knobs.items():
        follow(optimizer, knob, value)
    for gradient in steps:
        w.grad = gradient.clone()
        optimizer.step()
    return w.detach()


START = gradients(1, seed=9)[0]


@pytest.mark.parametrize("corrected", [True, False])
def test_three_steps_by_the_formula(corrected: bool) -> None:
    lr, decay, eps = 0.02, 0.3, 0.01
    start = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    steps = [torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([[-2.0, 1.0]], dtype=torch.float64)]
    got = drive(Lamb(beta1=0.8, beta2=0.9, eps=eps, bias_correction=corrected), start, steps, lr=lr, weight_decay=decay)
    w, m, v = [3.0, -4.0], [0.0, 0.0], [0.0, 0.0]
    for t, g in enumerate(steps, 1):
        u = []
        for i in range(2):
            gi = float(g[0, i])
            m[i], v[i] = 0.8 * m[i] + 0.2 * gi, 0.9 * v[i] + 0.1 * gi * gi
            one, two = (1 - 0.8**t, 1 - 0.9**t) if corrected else (1, 1)
            u.append(m[i] / one / (math.sqrt(v[i] / two) + eps) + decay * w[i])
        q = math.hypot(*w) / math.hypot(*u)
        w = [w[i] - lr * q * u[i] for i in range(2)]
    assert got[0].tolist() == pytest.approx(w, rel=1e-12)


@given(st.floats(min_value=1e-3, max_value=30), st.floats(min_value=0, max_value=2))
def test_a_step_is_as_long_as_the_clipped_norm_says(scale: float, decay: float) -> None:
    start = START * scale
    for lower, upper in ((0.0, 10.0), (5.0, 6.0), (0.0, math.inf)):
        moved = drive(Lamb(lower=lower, upper=upper), start, gradients(1), lr=0.1, weight_decay=decay) - start
        assert moved.norm().item() == pytest.approx(0.1 * min(max(start.norm().item(), lower), upper), rel=1e-9)


@given(st.floats(min_value=1e-4, max_value=1e4))
def test_the_scale_of_a_layers_gradient_does_not_matter(scale: float) -> None:
    spec = Lamb(eps=1e-300)
    plain = drive(spec, START, gradients(5), lr=0.05)
    assert torch.allclose(drive(spec, START, [g * scale for g in gradients(5)], lr=0.05), plain, rtol=1e-9)
    # with an eps that counts it does
    spec = Lamb(eps=0.1)
    assert not torch.allclose(drive(spec, START, [g * 10 for g in gradients(5)], lr=0.05), drive(spec, START, gradients(5), lr=0.05))


def test_zero_norms_fall_back_to_1() -> None:
    zero = torch.zeros(3, 4, dtype=torch.float64)
    first = gradients(1)
    expected = -0.1 * first[0] / (first[0].abs() + 1e-6)
    assert torch.allclose(drive(Lamb(lower=2.0), zero, first, lr=0.1), expected, rtol=1e-9)
    assert torch.equal(drive(Lamb(), START, [zero], lr=0.1, weight_decay=0.0), START)
    one = torch.ones(())
    assert trust_ratio(one * 0, one, 0.0, 10.0) == trust_ratio(one, one * 0, 0.0, 10.0) == 1.0


def test_vectors_neither_decay_nor_have_the_ratio() -> None:
    start, steps = START[0], gradients(3, (4,))
    plain = drive(Lamb(), start, steps, lr=0.1, weight_decay=0.5)
    assert torch.allclose(plain, drive(Lamb(adapt="none"), start, steps, lr=0.1, weight_decay=0.0), rtol=1e-12)
    moved = drive(Lamb(adapt="all"), start, steps[:1], lr=0.1) - start
    assert moved.norm().item() == pytest.approx(0.1 * start.norm().item(), rel=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_without_the_ratio_it_is_torchs_adamw(decay: float) -> None:
    w = nn.Parameter(START.clone())
    peer = torch.optim.AdamW([w], lr=0.05, betas=(0.8, 0.9), eps=1e-6, weight_decay=decay)
    for gradient in gradients(6):
        w.grad = gradient.clone()
        peer.step()
    got = drive(Lamb(beta1=0.8, beta2=0.9, adapt="none"), START, gradients(6), lr=0.05, weight_decay=decay)
    assert torch.allclose(got, w.detach(), rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_agrees_with_pytorch_optimizer(decay: float, scale: float) -> None:
    """Without bias correction, and with the decay inside the ratio as in the paper. Theirs adds eps to the ratio's denominator too, and with its
    defaults divides the whole step by 1 - beta1^t and leaves the decay out of the ratio, unlike the paper."""
    package = pytest.importorskip("pytorch_optimizer")
    w = nn.Parameter(START * scale)
    peer = package.Lamb([w], lr=0.05, betas=(0.8, 0.9), eps=1e-10, weight_decay=decay, weight_decouple=False, adam_debias=True)
    for gradient in gradients(6):
        w.grad = gradient.clone()
        peer.step()
    spec = Lamb(beta1=0.8, beta2=0.9, eps=1e-10, bias_correction=False)
    assert torch.allclose(drive(spec, START * scale, gradients(6), lr=0.05, weight_decay=decay), w.detach(), rtol=1e-8)


def test_state_bytes_by_hand() -> None:
    assert Lamb().state_bytes({"a": (2, 3), "b": (3,)}) == (2 * 6 * 4 + 4) + (2 * 3 * 4 + 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beta2": 1.0}, r"beta1 and beta2 must lie in \[0, 1\), found 0.9 and 1.0"),
        ({"eps": 0.0}, "eps must be > 0, found 0.0"),
        ({"lower": 3.0, "upper": 3.0}, "0 <= lower < upper must hold, found 3.0 and 3.0"),
        ({"adapt": "some"}, "adapt must be matrices, all or none, found 'some'"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lamb(**fields)


@pytest.mark.parametrize("spec", [Lamb(), Lamb(bias_correction=False, adapt="all"), Lamb(adapt="none")])
def test_contract(spec: Lamb) -> None:
    check_optimizer(spec)
