"""Adafactor's rule: factored second moments, cutting, and torch's implementation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from outlay.inner_rules import Adafactor
from outlay.layout import Slots, layout_bytes
from outlay.optim import Whole, follow


def started(rule: Adafactor, g: torch.Tensor) -> Slots:
    slots = Slots({}, "")
    slots.fill(rule.layout(tuple(g.shape)), g)
    return slots


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(6, 4), (3, 6, 4)])
def test_where_squares_have_rank_one_the_factors_hold_the_second_moment_exactly(shape: tuple[int, ...]) -> None:
    """Squares a b^T with a fixed b: the mean over steps has rank one, too."""
    rule = Adafactor(clip=1e9)
    columns = randn(*shape[:-2], 1, shape[-1], seed=1).square() + 0.1
    slots, v = started(rule, torch.zeros(shape)), torch.zeros(shape)
    for step in range(1, 12):
        size = randn(*shape[:-2], shape[-2], 1, seed=step).square() + 0.1
        g = (size * columns).sqrt() * randn(*shape, seed=100 + step).sign()
        b = 1 - step**-0.8
        v = b * v + (1 - b) * g**2
        assert torch.allclose(rule.direction(slots, g, step).raw, g / v.sqrt(), rtol=1e-4)


def test_other_squares_keep_their_means_of_rows_and_columns() -> None:
    rule, slots = Adafactor(clip=1e9), started(Adafactor(), torch.zeros(6, 4))
    g = randn(6, 4)
    v = (g / rule.direction(slots, g, 1).raw).square()
    assert torch.allclose(v.mean(0), g.square().mean(0), rtol=1e-4) and torch.allclose(v.mean(1), g.square().mean(1), rtol=1e-4)
    assert not torch.allclose(v, g.square(), rtol=0.1)


def test_a_large_gradient_is_cut() -> None:
    rule = Adafactor()
    slots = started(rule, torch.zeros(5))
    for step in range(1, 50):
        rule.direction(slots, randn(5, seed=step), step)
    raw = rule.direction(slots, 1e4 * torch.ones(5), 50).raw
    assert torch.allclose(raw, torch.ones(5), rtol=1e-5)
    slots = started(rule, torch.zeros(5))
    rule.direction(slots, torch.ones(5), 1)
    # below the bound nothing is cut: b = 1 - 2^-0.8
    b = 1 - 2**-0.8
    assert torch.allclose(
        rule.direction(slots, 0.1 * torch.ones(5), 2).raw, torch.full((5,), 0.1 / math.sqrt(b + (1 - b) * 0.01)), rtol=1e-5
    )


def test_the_first_moment_is_a_mean_of_what_was_cut() -> None:
    with_mean, without = Adafactor(beta1=0.9), Adafactor()
    one, other = started(with_mean, torch.zeros(4, 3)), started(without, torch.zeros(4, 3))
    m = torch.zeros(4, 3)
    for step in range(1, 9):
        g = randn(4, 3, seed=step)
        m = 0.9 * m + 0.1 * without.direction(other, g, step).raw
        assert torch.allclose(with_mean.direction(one, g, step).raw, m, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(6, 4), (5,), (2, 3, 4)])
def test_torch_takes_the_same_steps_but_for_their_size(shape: tuple[int, ...]) -> None:
    """torch's step is lr max(1e-3, rms(w)) while lr < 1 / sqrt(t), so that much is given here as the learning rate."""
    w, own = nn.Parameter(randn(*shape, seed=3)), nn.Parameter(randn(*shape, seed=3))
    peer = torch.optim.Adafactor([w], lr=0.05)
    mine = Whole(Adafactor()).build([("w", own)])
    for step in range(30):
        follow(mine, "lr", 0.05 * max(1e-3, float(own.detach().square().mean().sqrt())))
        w.grad = randn(*shape, seed=100 + step)
        own.grad = w.grad.clone()
        peer.step()
        mine.step()
    assert torch.allclose(w.detach(), own.detach(), rtol=1e-4, atol=1e-6)
    assert float((w.detach() - randn(*shape, seed=3)).abs().max()) > 0.1


def test_bytes() -> None:
    assert layout_bytes(Adafactor().layout((100, 30)), 2) == 4 * 130
    assert layout_bytes(Adafactor(beta1=0.9).layout((100, 30)), 2) == 4 * 130 + 2 * 3000
    assert layout_bytes(Adafactor().layout((30,)), 2) == 4 * 30
    assert layout_bytes(Adafactor().layout((7, 100, 30)), 2) == 7 * 4 * 130


def test_gradients_of_zero_and_of_nothing_move_nothing() -> None:
    for shape in ((4, 3), (3,), (), (0, 3)):
        g = torch.zeros(shape)
        raw = Adafactor().direction(started(Adafactor(), g), g, 1).raw
        assert raw.shape == g.shape and not raw.any()
    half = torch.zeros(4, 3)
    half[1:] = 1.0
    raw = Adafactor().direction(started(Adafactor(), half), half, 1).raw
    assert bool(raw.isfinite().all()) and not raw[0].any() and float(raw[1, 0]) == pytest.approx(1.0)
