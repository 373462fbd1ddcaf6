"""Natural GaLore: its readable twin, when it is GaLore, what it keeps and forgets, and where it is ahead."""

from __future__ import annotations

import pytest
import torch
from small_steps import Drawn, drive, gradients, kept
from torch import nn

from outlay.optim import GaLore, NaturalGaLore, OptimizerSpec, follow
from outlay.optim.natural_galore import reference_natural_galore
from outlay.testing import check_optimizer

START = gradients(1, seed=9)[0]


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("history", [1, 4, 20])
def test_a_hundred_steps_agree_with_the_readable_twin(decay: float, history: int) -> None:
    spec, steps = NaturalGaLore(rank=2, period=7, history=history), gradients(100)
    expected = reference_natural_galore(START, steps, spec, lr=0.01, decay=decay)
    assert torch.allclose(drive(spec, START, steps, lr=0.01, weight_decay=decay), expected, rtol=1e-8)
    wide = drive(spec, START.T, [g.T for g in steps], lr=0.01, weight_decay=decay)
    assert torch.allclose(wide.T, expected, rtol=1e-8)


def equally_long(count: int, rank: int) -> Drawn:
    """Gradients whose parts in the leading directions of the first are of one length."""
    steps = gradients(count)
    rows = torch.linalg.svd(steps[0], full_matrices=False).Vh[:rank]
    return [g / (g @ rows.T).norm() for g in steps]


def test_a_history_of_one_only_divides_by_a_length_which_adam_does_not_see() -> None:
    steps = equally_long(30, 2)
    one = drive(NaturalGaLore(rank=2, period=None, history=1, eps=1e-12), START, steps, lr=0.01)
    other = drive(GaLore(rank=2, period=None, eps=1e-12), START, steps, lr=0.01)
    assert torch.allclose(one, other, rtol=1e-9)
    # a longer history turns it
    assert not torch.allclose(drive(NaturalGaLore(rank=2, period=None, history=2, eps=1e-12), START, steps, lr=0.01), other, rtol=1e-3)


def test_with_much_damping_it_is_galore() -> None:
    steps = gradients(30)
    other = drive(GaLore(rank=2, period=4, eps=1e-30), START, steps, lr=0.01)
    apart = [
        float((drive(NaturalGaLore(rank=2, period=4, damping=damping, eps=1e-30), START, steps, lr=0.01) - other).norm())
        for damping in (1e6, 1e9)
    ]
    assert apart[1] < 1e-7 and apart[1] == pytest.approx(apart[0] / 1000, rel=0.01)


def test_a_new_subspace_empties_the_history_and_keeps_the_moments() -> None:
    w = nn.Parameter(START.clone())
    optimizer = NaturalGaLore(rank=2, period=3, history=5).build([("w", w)])
    filled, before = [], torch.zeros(())
    for step, gradient in enumerate(gradients(7)):
        w.grad = gradient
        optimizer.step()
        state = optimizer.state[w]
        filled.append(int((state["inner.gradients"] != 0).any(1).sum()))
        if step == 3:
            # the second moment still knows the first three steps
            assert bool((state["inner.then.v"] >= 0.999 * before).all())
        before = state["inner.then.v"].clone()
    assert filled == [1, 2, 3, 1, 2, 3, 1]


def test_the_history_is_counted() -> None:
    sizes = kept(NaturalGaLore(rank=2, history=20), (6, 4))
    moments = sizes["inner.then.m"] + sizes["inner.then.v"]
    assert moments == kept(GaLore(rank=2), (6, 4))["inner.m"] * 2
    assert sizes["inner.gradients"] == 20 * 12 == 10 * moments
    shapes = {"w": (6, 4)}
    assert NaturalGaLore(rank=2, history=20).state_bytes(shapes) == GaLore(rank=2).state_bytes(shapes) + 4 * 240


def quadratic(spec: OptimizerSpec, size: float) -> float:
    """Mean loss of three starts after 30 steps, by the best of a grid of learning rates, on quadratics whose curvatures reach from 1 to 1/1000 in
    directions that are no axes. Gradients are ``size`` times as long; nothing of GaLore sees that."""

    def loss(seed: int, lr: float) -> float:
        w = nn.Parameter(gradients(1, (8, 8), seed=seed)[0])
        turn = torch.linalg.qr(gradients(1, (64, 64), seed=seed + 10)[0])[0]
        curvature = turn * torch.logspace(0, -3, 64, dtype=torch.float64) @ turn.T
        optimizer = spec.build([("w", w)])
        follow(optimizer, "lr", lr)
        for _ in range(30):
            w.grad = size * (curvature @ w.detach().flatten()).view(8, 8)
            optimizer.step()
        return 0.5 * float(w.detach().flatten() @ curvature @ w.detach().flatten())

    return min(sum(loss(seed, lr) for seed in range(3)) / 3 for lr in (3e-3, 1e-2, 3e-2, 1e-1))


def test_it_is_ahead_on_unequal_curvature_where_damping_is_of_the_size_of_squared_gradients() -> None:
    natural, galore = (make(rank=8, scale=1.0) for make in (NaturalGaLore, GaLore))
    assert quadratic(natural, 0.01) < 0.8 * quadratic(galore, 0.01)
    # where gradients are far longer, each is divided by the sum of the last ones' squares and the steps fade
    assert quadratic(natural, 1.0) > 2 * quadratic(galore, 1.0)


def test_refusals_and_contract() -> None:
    with pytest.raises(ValueError, match=r"history must be >= 1, found 0"):
        NaturalGaLore(history=0)
    with pytest.raises(ValueError, match=r"damping must be > 0, found 0"):
        NaturalGaLore(damping=0.0)
    check_optimizer(NaturalGaLore(rank=2, period=2, history=3))
