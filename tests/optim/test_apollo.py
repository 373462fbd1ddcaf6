"""APOLLO: steps along the gradient, their length, the sketch that is drawn again, and what it gains on what it is made of."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_steps import drive, gradients, kept, regression, updates
from torch import nn

from outlay.optim import Apollo, ApolloMini, GaLore, OptimizerSpec
from outlay.optim.apollo import reference_apollo
from outlay.projectors import Gaussian, Place
from outlay.residuals import ChannelScaled
from outlay.testing import check_optimizer

START = gradients(1, seed=9)[0]


def sketch(rank: int, round: int, seed: int = 0) -> torch.Tensor:
    """P for a matrix of four columns, read off its product with the identity."""
    return Gaussian(rank).down({}, torch.eye(4, dtype=torch.float64), Place("w", round=round, seed=seed)).T


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("spec", [Apollo(rank=2, period=7), ApolloMini(period=7), Apollo(rank=2, period=7, gamma=None, scale=4.0)])
def test_a_hundred_steps_agree_with_the_readable_twin(spec: Apollo, decay: float) -> None:
    steps, sketches = gradients(100), [sketch(spec.rank, t // 7) for t in range(100)]
    expected = reference_apollo(START, steps, sketches, spec, lr=0.01, decay=decay)
    assert torch.allclose(drive(spec, START, steps, lr=0.01, weight_decay=decay), expected, rtol=1e-9)
    wide = drive(spec, START.T, [g.T for g in steps], lr=0.01, weight_decay=decay)
    assert torch.allclose(wide.T, expected, rtol=1e-9)


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def test_a_step_of_mini_is_along_the_gradient_and_a_row_of_apollo_along_its_own() -> None:
    steps = gradients(10)
    for update, g in zip(updates(ApolloMini(period=3), steps), steps, strict=True):
        assert cosine(update, g) == pytest.approx(1.0, abs=1e-12)
    for update, g in zip(updates(Apollo(rank=2, period=3), steps), steps, strict=True):
        assert all(cosine(row, along) == pytest.approx(1.0, abs=1e-12) for row, along in zip(update, g, strict=True))
        assert cosine(update, g) < 0.999
    # of a wide matrix it is the columns
    wide = updates(Apollo(rank=2), [g.T for g in steps])[0]
    assert all(cosine(wide[:, i], steps[0].T[:, i]) == pytest.approx(1.0, abs=1e-12) for i in range(6))


def test_the_seed_and_the_name_are_the_sketch() -> None:
    def ended(seed: int, name: str = "w") -> torch.Tensor:
        w = nn.Parameter(START.clone())
        optimizer = Apollo(rank=2, period=2).build([(name, w)], seed)
        for g in gradients(5):
            w.grad = g
            optimizer.step()
        return w.detach()

    assert torch.equal(ended(1), ended(1))
    assert not torch.equal(ended(1), ended(2))
    assert not torch.equal(ended(1), ended(1, "v"))


def test_the_root_of_scale_multiplies_the_step() -> None:
    steps = gradients(3)
    for one, other in zip(updates(Apollo(rank=2, scale=9.0), steps), updates(Apollo(rank=2), steps), strict=True):
        assert torch.allclose(one, 3 * other, rtol=1e-9)
    for one, other in zip(updates(Apollo(rank=2, scale=9.0, scale_first=True), steps), updates(Apollo(rank=2), steps), strict=True):
        assert torch.allclose(one, 3 * other, rtol=1e-6)


@given(st.lists(st.floats(min_value=1e-3, max_value=1e3), min_size=2, max_size=8))
def test_the_scaled_gradient_never_grows_faster_than_the_limit(scales: list[float]) -> None:
    steps = [scale * g for scale, g in zip(scales, gradients(len(scales)), strict=True)]
    factors = [(1 - 0.999**t) ** 0.5 / (1 - 0.9**t) for t in range(1, len(steps) + 1)]
    got = [float(each.norm()) / factor for each, factor in zip(updates(Apollo(rank=2, period=3), steps), factors, strict=True)]
    assert all(after <= 1.01 * before * (1 + 1e-6) for before, after in pairwise(got))


def test_a_first_gradient_of_zero_does_not_shut_it() -> None:
    steps = gradients(3)
    late = updates(Apollo(rank=2, period=None), [torch.zeros_like(START), *steps])
    assert torch.equal(late[0], torch.zeros_like(START))
    # the first actual one is not limited
    free = updates(Apollo(rank=2, period=None, gamma=None), [torch.zeros_like(START), *steps])
    assert torch.allclose(late[1], free[1], rtol=1e-9)
    # nor does one so small beside the guard of 1e-8 that nothing is left of its scaled length
    late = updates(Apollo(rank=2, period=None), [1e-30 * START, *steps])
    free = updates(Apollo(rank=2, period=None, gamma=None), [1e-30 * START, *steps])
    assert torch.allclose(late[1], free[1], rtol=1e-9)


def test_the_state_is_two_moments_of_the_sketch_and_one_length() -> None:
    assert kept(Apollo(rank=2), (6, 4)) == {"step": 1, "inner.m": 12, "inner.v": 12, "residual.length": 1}
    assert kept(ApolloMini(), (6, 4)) == {"step": 1, "inner.m": 6, "inner.v": 6, "residual.length": 1}
    assert kept(ApolloMini(gamma=None), (4, 6)) == {"step": 1, "inner.m": 6, "inner.v": 6}


def best(spec: OptimizerSpec, rank: int | None = None, condition: float = 1.0) -> float:
    return min(regression(spec, lr, rank=rank, condition=condition) for lr in (1e-2, 3e-2))


@pytest.mark.parametrize("rank", [4, None])
def test_it_learns_what_a_step_within_the_same_sketch_does_not(rank: int | None) -> None:
    # the same projector and the same moments; the one steps along the gradient, the other within the subspace
    assert best(Apollo(rank=4, period=None), rank) < 0.01
    assert best(GaLore(period=None, scale=1.0, projector=Gaussian(4)), rank) > 0.5
    assert best(GaLore(rank=4, period=None, scale=1.0), rank) > 0.25


def test_unequal_inputs() -> None:
    # second moments of the inputs from 1 to 1/100
    assert best(ApolloMini(period=None), condition=10.0) < 0.01
    assert best(Apollo(rank=4, period=None), condition=10.0) < 0.1


def test_parts_refusals_and_contract() -> None:
    assert ApolloMini().composed().residual == ChannelScaled("tensor", 128.0)
    assert ApolloMini().composed().projector == Gaussian(1)
    with pytest.raises(ValueError, match=r"scale must be > 0"):
        Apollo(scale=0.0)
    check_optimizer(Apollo(rank=2, period=2))
    check_optimizer(ApolloMini(scale_first=True))
