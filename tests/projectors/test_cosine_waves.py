"""Cosine waves: the basis, the choice of columns, its error, the fast transform, and how coordinates turn."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import chosen, coordinates, matrix, part

from outlay.layout import Slot
from outlay.projectors import Dct, Place
from outlay.projectors.dct import cosines, fast_cosines


def basis(n: int) -> torch.Tensor:
    rows = [[math.sqrt(2 / n) * math.cos(math.pi * i * (2 * j + 1) / (2 * n)) for j in range(n)] for i in range(n)]
    q = torch.tensor(rows, dtype=torch.float64)
    q[0] *= math.sqrt(1 / 2)
    return q


@given(st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_the_basis_is_the_formula_and_orthogonal(n: int) -> None:
    q = cosines(n, matrix(1, 1))
    assert torch.allclose(q, basis(n), atol=1e-12)
    assert torch.allclose(q @ q.T, torch.eye(n, dtype=q.dtype), atol=1e-12)


def test_the_basis_is_exact_where_angles_are_large() -> None:
    n = 700
    angles = torch.arange(n, dtype=torch.float64)[1:, None] * torch.arange(1, 2 * n, 2, dtype=torch.float64) * (math.pi / (2 * n))
    exact = torch.cos(angles) * math.sqrt(2 / n)
    # half a unit in the last place of single precision, of entries below 1 / 16
    assert (cosines(n, torch.zeros(())).double()[1:] - exact).abs().max() <= 2**-29 + 1e-12


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_fast_transform_is_the_product_with_the_basis(rows: int, n: int, seed: int) -> None:
    g = matrix(rows, n, seed)
    before = g.clone()
    assert torch.allclose(fast_cosines(g), g @ basis(n), atol=1e-11)
    assert torch.equal(g, before)


@given(st.integers(2, 8), st.integers(2, 8), st.integers(1, 8), st.integers(0, 1000), st.sampled_from(["l1", "l2"]))
@settings(max_examples=60, deadline=None)
def test_the_fast_transform_chooses_the_same_columns(rows: int, columns: int, rank: int, seed: int, score: str) -> None:
    g = matrix(rows, columns, seed)
    assert torch.equal(part(Dct(rank, score, fft=True), g), part(Dct(rank, score), g))  # type: ignore[arg-type]


@given(st.integers(2, 8), st.integers(1, 8), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_error_is_what_the_other_columns_hold(n: int, rank: int, seed: int) -> None:
    rank = min(rank, n)
    g = matrix(n + 2, n, seed)
    kept = chosen(Dct(rank, "l2"), g, Place("w"))["indices"].tolist()
    assert kept == sorted(set(kept)) and len(kept) == rank
    held = (g @ basis(n)).square().sum(0)
    error = float((g - part(Dct(rank, "l2"), g)).square().sum())
    assert error == pytest.approx(float(g.square().sum() - held[kept].sum()), abs=1e-9)
    assert error <= (1 - rank / n) * float(g.square().sum()) + 1e-9


@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
def test_no_other_columns_of_the_basis_leave_less(shape: tuple[int, int]) -> None:
    g, q = matrix(*shape), basis(5)
    tall = g if shape[0] > shape[1] else g.T
    errors = [float((tall - tall @ q[:, list(some)] @ q[:, list(some)].T).norm()) for some in combinations(range(5), 2)]
    assert float((g - part(Dct(2, "l2"), g)).norm()) == pytest.approx(min(errors))
    assert sorted(errors)[1] > min(errors) + 1e-3


def test_scores_are_sums_of_absolute_values_or_euclidean() -> None:
    s = torch.zeros(4, 4, dtype=torch.float64)
    s[0, 1], s[:, 2] = 3.0, 1.0
    g = s @ basis(4).T
    # column 1 measures 3 either way, column 2 has 4 ones
    assert chosen(Dct(1, "l1"), g, Place("w"))["indices"].tolist() == [2]
    assert chosen(Dct(1, "l2"), g, Place("w"))["indices"].tolist() == [1]
    assert torch.allclose(coordinates(Dct(1, "l2"), g), s[:, 1:2])


def test_all_columns_give_the_gradient_back() -> None:
    for shape in ((6, 4), (4, 6)):
        assert torch.allclose(part(Dct(4), matrix(*shape)), matrix(*shape), atol=1e-12)
        assert torch.allclose(part(Dct(), matrix(*shape)), matrix(*shape), atol=1e-12)


def test_the_first_columns_are_taken_when_all_score_the_same() -> None:
    assert chosen(Dct(3), torch.zeros(6, 5), Place("w"))["indices"].tolist() == [0, 1, 2]


@given(st.integers(2, 7), st.integers(1, 7), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_old_coordinates_turn_by_a_partial_permutation(n: int, rank: int, seed: int) -> None:
    rank, projector = min(rank, n), Dct(min(rank, n))
    old, new = (chosen(projector, matrix(n + 1, n, seed + number), Place("w", round=number)) for number in (0, 1))
    turn = projector.turn(old, new, Place("w", round=1))
    q, one, other = basis(n), old["indices"].tolist(), new["indices"].tolist()
    assert torch.allclose(turn.double(), q[:, one].T @ q[:, other], atol=1e-6)
    assert set(turn.flatten().tolist()) <= {0.0, 1.0}
    assert turn.sum(0).max() <= 1 and turn.sum(1).max() <= 1
    assert int(turn.sum()) == len(set(one) & set(other))


def test_matrices_with_as_many_columns_share_a_table() -> None:
    tables: dict[str, torch.Tensor] = {}
    projector = Dct(2)
    for name, g in (("a", matrix(6, 4).float()), ("b", matrix(5, 4).float()), ("c", matrix(8, 7).float())):
        assert set(chosen(projector, g, Place(name, tables=tables))) == {"indices"}
    assert {name: tuple(table.shape) for name, table in tables.items()} == {"dct.4": (4, 4), "dct.7": (7, 7)}
    assert projector.tables([(6, 4), (5, 4), (8, 7)]) == {"dct.4": Slot((4, 4)), "dct.7": Slot((7, 7))}
    first = tables["dct.4"]
    # a matrix of another type has a table of its own, and the first stays what it is
    assert torch.equal(coordinates(projector, matrix(6, 4), Place("d", tables=tables)), coordinates(projector, matrix(6, 4)))
    assert tables["dct.4"] is first and tables["dct.4.torch.float64.cpu"].dtype == torch.float64
    assert len(tables) == 3
    coordinates(projector, matrix(9, 4), Place("e", tables=tables))
    assert len(tables) == 3
