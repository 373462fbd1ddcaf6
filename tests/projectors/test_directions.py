"""Singular vectors, exact and randomised, and random directions: bases, what passes whole, and what holds on average."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import chosen, coordinates, matrix, part
from torch import nn

from outlay.optim import Subspace
from outlay.projectors import Columns, Dct, Gaussian, Orthonormal, Place, Projector, RandomisedSvd, Rows, Svd

SHAPES = [(9, 6), (6, 9), (7, 7)]


def error(projector: Projector, g: torch.Tensor, seed: int = 0) -> float:
    return float((g - part(projector, g, Place("w", seed=seed))).norm())


@pytest.mark.parametrize("projector", [Svd(3), RandomisedSvd(3), Orthonormal(3), Orthonormal(50)], ids=repr)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_orthonormal(projector: Projector, shape: tuple[int, int]) -> None:
    for g in (matrix(*shape), torch.zeros(shape, dtype=torch.float64)):
        rows = chosen(projector, g.T if projector.turns(shape) else g, Place("w"))["rows"]
        assert rows.shape == (min(projector.rank, *shape), min(shape))  # type: ignore[attr-defined]
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows), dtype=rows.dtype), atol=1e-12)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 9), st.integers(0, 3), st.integers(0, 2), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_gradient_of_the_rank_passes_whole(rows: int, columns: int, rank: int, oversample: int, iterations: int, seed: int) -> None:
    rank = min(rank, rows, columns)
    g = matrix(rows, columns, seed, rank)
    for projector in (Svd(rank), RandomisedSvd(rank, oversample, iterations)):
        assert error(projector, g) <= 1e-8 * float(g.norm())


def test_sampling_all_directions_gives_the_singular_vectors() -> None:
    g = matrix(9, 6)
    assert torch.allclose(part(RandomisedSvd(2, 4, 0), g), part(Svd(2), g), atol=1e-12)
    assert not torch.allclose(part(RandomisedSvd(2, 3, 0), g), part(Svd(2), g), atol=1e-3)


def test_power_iterations_and_oversampling_near_the_singular_vectors() -> None:
    basis = torch.linalg.svd(matrix(40, 30), full_matrices=False)
    g = basis.U @ torch.diag(1.0 / torch.arange(1, 31, dtype=torch.float64).sqrt()) @ basis.Vh
    best = error(Svd(4), g)
    found = {
        (extra, power): sum(error(RandomisedSvd(4, extra, power), g, seed) for seed in range(20)) / 20 / best
        for extra in (0, 4)
        for power in (0, 1, 20)
    }
    assert found[0, 0] > found[0, 1] > found[0, 20] > 1 and found[4, 0] > found[4, 1] > found[4, 20] > 1
    assert all(found[4, power] < found[0, power] for power in (0, 1, 20))
    assert found[0, 20] < 1.002 and found[0, 0] > 1.05


def test_random_directions_favour_none() -> None:
    rows = torch.stack([chosen(Orthonormal(2), matrix(6, 4), Place("w", seed=seed))["rows"] for seed in range(2000)])
    # entries have the variance 1 / 4
    assert rows.mean(0).abs().max() < 5 * 0.5 / 2000**0.5
    assert torch.allclose((rows.mT @ rows).mean(0), 2 / 4 * torch.eye(4, dtype=torch.float64), atol=0.04)


def test_the_sketch_keeps_lengths_on_average_and_is_no_projection() -> None:
    g, projector = matrix(5, 4), Gaussian(2)
    places = [Place("w", seed=seed) for seed in range(4000)]
    lengths = torch.stack([coordinates(projector, g, place).square().sum(1) for place in places])
    # ||R_i||^2 / ||G_i||^2 is chi^2 with rank degrees of freedom over their number: variance 2 / rank
    assert torch.allclose(lengths.mean(0) / g.square().sum(1), torch.ones(5, dtype=torch.float64), atol=5 / 4000**0.5)
    assert torch.allclose(lengths.var(0) / g.square().sum(1) ** 2, torch.ones(5, dtype=torch.float64), atol=0.25)
    lifted = torch.stack([part(projector, g, place) for place in places])
    assert torch.allclose(lifted.mean(0), g, atol=0.2)
    r = coordinates(projector, g)
    assert not torch.allclose(projector.down({}, projector.up({}, r, (5, 4), Place("w")), Place("w")), r, rtol=0.1)


def test_a_sketch_that_is_drawn_again_is_the_stored_one() -> None:
    ends = []
    for stored in (True, False):
        draw, w = torch.Generator().manual_seed(0), nn.Parameter(matrix(6, 4).float())
        optimizer = Subspace(Gaussian(2, stored), period=3).build([("w", w)], seed=5)
        for _ in range(8):
            w.grad = torch.randn(6, 4, generator=draw)
            optimizer.step()
        ends.append(w.detach())
        kept = {name: tuple(value.shape) for name, value in optimizer.state[w].items() if name != "step"}
        moments: dict[str, tuple[int, ...]] = {"inner.m": (6, 2), "inner.v": (6, 2)}
        assert kept == moments | ({"projector.rows": (2, 4)} if stored else {})
    assert torch.equal(*ends)


@given(st.integers(2, 8), st.integers(2, 8), st.integers(1, 8), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_no_projector_of_the_same_rank_leaves_less_than_the_singular_vectors(rows: int, columns: int, rank: int, seed: int) -> None:
    rank = min(rank, rows, columns)
    g = matrix(rows, columns, seed)
    best = error(Svd(rank), g)
    others: list[Projector] = [RandomisedSvd(rank, 1, 1), Orthonormal(rank), Gaussian(rank), Dct(rank, "l1"), Dct(rank, "l2")]
    others += [Columns((rank + 0.5) / (columns + 0.5)), Rows((rank + 0.5) / (rows + 0.5))]
    singular = torch.linalg.svdvals(g)
    assert best == pytest.approx(float(singular[rank:].norm()), abs=1e-9)
    for other in others:
        kept = int(torch.linalg.matrix_rank(part(other, g)))
        assert kept <= rank
        assert error(other, g) >= best - 1e-9


@pytest.mark.parametrize(("projector", "white", "falling"), [(Svd(16), 0.49, 0.03), (Dct(16), 0.71, 0.49), (Orthonormal(16), 0.75, 0.75)])
def test_a_quarter_of_the_directions_leaves_what_was_measured(projector: Projector, white: float, falling: float) -> None:
    basis = torch.linalg.svd(matrix(128, 64, seed=1), full_matrices=False)
    spectrum = basis.U @ torch.diag(1.0 / torch.arange(1, 65, dtype=torch.float64)) @ basis.Vh
    for g, share in ((matrix(128, 64), white), (spectrum, falling)):
        left = sum(error(projector, g, seed) ** 2 for seed in range(40)) / 40
        assert left / float(g.norm()) ** 2 == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("projector", [Svd, RandomisedSvd, Orthonormal, Gaussian, Dct])
def test_ranks_below_one_are_refused(projector: type) -> None:
    with pytest.raises(ValueError, match="rank must be >= 1, found 0"):
        projector(rank=0)


def test_numbers_below_zero_are_refused() -> None:
    for fields in ({"oversample": -1}, {"iterations": -1}):
        with pytest.raises(ValueError, match="oversample and iterations must be >= 0"):
            RandomisedSvd(**fields)
