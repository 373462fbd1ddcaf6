"""Fira: its readable twin, when it is GaLore, its limiter from the first step on, and what it gains on GaLore with the same state."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_steps import Drawn, drive, gradients, kept, positions, regression, updates

from outlay.optim import Fira, GaLore
from outlay.optim.fira import reference_fira
from outlay.testing import check_optimizer

START = gradients(1, seed=9)[0]


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("gamma", [1.01, None])
def test_a_hundred_steps_agree_with_the_readable_twin(decay: float, exact: bool, gamma: float | None) -> None:
    spec, steps = Fira(rank=2, period=7, exact=exact, gamma=gamma), gradients(100)
    expected = reference_fira(START, steps, spec, lr=0.01, decay=decay)
    assert torch.allclose(drive(spec, START, steps, lr=0.01, weight_decay=decay), expected, rtol=1e-9)
    wide = drive(spec, START.T, [g.T for g in steps], lr=0.01, weight_decay=decay)
    assert torch.allclose(wide.T, expected, rtol=1e-9)


def test_gradients_of_the_rank_of_the_subspace_make_it_galore() -> None:
    # all in one row space of dimension 2: nothing is left
    rows = gradients(1, (2, 4), seed=3)[0]
    steps = [g @ rows for g in gradients(20, (6, 2))]
    one, other = drive(Fira(rank=2, scale=1.0), START, steps, lr=0.01), drive(GaLore(rank=2, scale=1.0), START, steps, lr=0.01)
    assert torch.allclose(one, other, rtol=0, atol=1e-12)
    # else it has the residual's rank on top
    more = updates(Fira(rank=2), gradients(1))[0]
    assert torch.linalg.matrix_rank(more) == 4
    assert torch.linalg.matrix_rank(updates(GaLore(rank=2), gradients(1))[0]) == 2


def residual_lengths(steps: Drawn, spec: Fira) -> list[float]:
    """||C_t||: what is outside of a subspace that is chosen once is C_t and nothing else, but for Adam's factor."""
    out = torch.linalg.svd(steps[0], full_matrices=False).Vh[spec.rank :]
    factors = [(1 - 0.999**t) ** 0.5 / (1 - 0.9**t) for t in range(1, len(steps) + 1)]
    return [float((update @ out.T).norm()) / factor for update, factor in zip(updates(spec, steps), factors, strict=True)]


@given(st.lists(st.floats(min_value=1e-3, max_value=1e3), min_size=2, max_size=8))
def test_the_residual_never_grows_faster_than_the_limit(scales: list[float]) -> None:
    steps = [scale * g for scale, g in zip(scales, gradients(len(scales)), strict=True)]
    got = residual_lengths(steps, Fira(rank=2, period=None))
    assert all(after <= 1.01 * before * (1 + 1e-6) for before, after in pairwise(got))


def test_a_spike_lengthens_the_residual_by_a_hundredth() -> None:
    # the spike is outside of the subspace alone, where Adam's moments do not see it
    calm = [gradients(1)[0]] * 5
    out = torch.linalg.svd(calm[0], full_matrices=False).Vh[2:]
    spiked = [*calm[:4], calm[4] + 99 * calm[4] @ out.T @ out]
    before, after = residual_lengths(spiked, Fira(rank=2, period=None))[3:]
    assert after == pytest.approx(1.01 * before, rel=1e-6)
    # without the limiter it is a hundred times as long
    calm_end, spiked_end = (residual_lengths(each, Fira(rank=2, period=None, gamma=None))[4] for each in (calm, spiked))
    assert spiked_end == pytest.approx(100 * calm_end, rel=1e-6)
    # nor does a spike of all of the gradient get through
    whole = residual_lengths([*calm[:4], 100 * calm[4]], Fira(rank=2, period=None))
    assert whole[4] <= 1.01 * whole[3] * (1 + 1e-6)


def distance(first: str, steps: int = 300) -> float:
    """Relative distance to a 16 x 8 optimum by unit quadratics, in single precision, whose first gradient may be made unusual."""
    target = gradients(1, (16, 8), seed=4, dtype=torch.float32)[0]
    noise = gradients(steps, (16, 8), seed=5, dtype=torch.float32)
    w = torch.nn.Parameter(torch.zeros(16, 8))
    optimizer = Fira(rank=2, scale=1.0, period=None if first == "within" else 200).build([("w", w)])
    for step in range(steps):
        w.grad = w.detach() - target + 0.1 * noise[step]
        if step == 0 and first == "zero":
            w.grad = torch.zeros(16, 8)
        if step == 0 and first == "within":
            u, s, vh = torch.linalg.svd(w.grad, full_matrices=False)
            w.grad = (u[:, :2] * s[:2]) @ vh[:2]
        optimizer.step()
    return float((w.detach() - target).norm() / target.norm())


def test_a_first_gradient_of_zero_or_within_the_subspace_does_not_shut_the_residual_out() -> None:
    usual = distance("usual")
    assert usual < 0.25
    for first in ("zero", "within"):
        assert distance(first) < 1.3 * usual, first


def test_the_state_is_galores_and_one_length() -> None:
    sizes = kept(Fira(rank=2), (6, 4))
    assert sizes == kept(GaLore(rank=2), (6, 4)) | {"residual.length": 1}
    assert sizes["inner.m"] + sizes["inner.v"] == 2 * 6 * 2 and sizes["projector.rows"] == 2 * 4


@pytest.mark.parametrize("rank", [4, None])
def test_it_learns_what_galore_with_the_same_state_does_not(rank: int | None) -> None:
    # differences of rank 4 in a subspace of 4 directions chosen at the first batch, and differences of full rank
    fira, galore = (min(regression(make(rank=4, period=None, scale=1.0), lr, rank=rank) for lr in (1e-2, 3e-2)) for make in (Fira, GaLore))
    assert fira < 1e-3
    assert galore > 0.25


def test_every_step_is_limited_through_new_subspaces() -> None:
    seen = positions(Fira(rank=1, period=3), START, gradients(12), lr=0.01)
    assert all(bool(w.isfinite().all()) for w in seen)
    assert not torch.equal(seen[-1], drive(Fira(rank=1, period=4), START, gradients(12), lr=0.01))


def test_refusals_and_contract() -> None:
    with pytest.raises(ValueError, match=r"gamma must be >= 1"):
        Fira(gamma=0.5)
    with pytest.raises(ValueError, match=r"rank must be >= 1"):
        Fira(rank=0)
    check_optimizer(Fira(rank=2, period=2))
    check_optimizer(Fira(rank=2, gamma=None, exact=False))
