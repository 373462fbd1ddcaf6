"""Scaling by norms: the formula, both residuals, and the edges of the factor."""

from __future__ import annotations

import pytest
import torch
from small_splits import P, drawn, split

from outlay.inner_rules.base import Direction
from outlay.residuals import NormScaled, Split
from outlay.testing import check_residual


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_update_by_the_formula(exact: bool, granularity: str) -> None:
    g = drawn(5, 4)
    rule, given = NormScaled(0.25, None, "channel" if granularity == "channel" else "tensor", exact), split(g)
    n, r = given.direction.raw, given.small
    expected = torch.empty_like(g)
    for i in range(5):
        phi = float(n[i].norm() / r[i].norm()) if granularity == "channel" else float(n.norm() / r.norm())
        expected[i] = 0.7 * (0.25 * n[i] @ P + phi * (g[i] - (1.0 if exact else 0.25) * P.T @ (P @ g[i])))
    assert torch.allclose(rule.update({}, given), expected, rtol=1e-7)


def test_a_gradient_within_the_subspace_leaves_nothing() -> None:
    g = drawn(5, 2, seed=3) @ P
    given = split(g)
    assert torch.allclose(NormScaled(gamma=None).update({}, given), 0.7 * given.direction.raw @ P, atol=1e-14)
    # by the code's residual, 1 - scale of it is stepped along a second time
    twice = NormScaled(0.5, None, exact=False).update({}, given) - 0.7 * 0.5 * given.direction.raw @ P
    assert twice.norm() > 0.1


def test_rows_without_a_gradient_do_not_move_and_divide_by_no_zero() -> None:
    g = drawn(5, 4)
    g[2] = 0.0
    raw = drawn(5, 2, seed=1)
    raw[2] = 0.0
    got = NormScaled(gamma=None).update({}, split(g, raw=raw))
    assert torch.equal(got[2], torch.zeros(4, dtype=torch.float64))
    assert bool(got.isfinite().all())


def test_coordinates_without_the_matrix_rows_are_refused() -> None:
    flat = Split(drawn(5, 4), drawn(6), Direction(drawn(6)), lambda r: drawn(5, 4))
    with pytest.raises(ValueError, match=r"needs coordinates for each row of the matrix, found \(6,\) for \(5, 4\); take granularity"):
        NormScaled().update(fresh(), flat)
    assert NormScaled(granularity="tensor").update(fresh(), flat).shape == (5, 4)


def fresh() -> dict[str, torch.Tensor]:
    return {"length": torch.zeros((), dtype=torch.float32)}


def test_ranges_and_contract() -> None:
    with pytest.raises(ValueError, match=r"scale must be > 0, found 0"):
        NormScaled(scale=0.0)
    with pytest.raises(ValueError, match=r"gamma must be >= 1"):
        NormScaled(gamma=0.5)
    for rule in (NormScaled(), NormScaled(0.25, None), NormScaled(0.5, 1.1, "tensor", exact=False)):
        check_residual(rule)
