"""Residuals stepped along without state: signs and the gradient as it is."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_splits import P, drawn, split

from outlay.residuals import Drop, Raw, Residual, Sign
from outlay.testing import check_residual


def test_signs_take_the_scales_and_not_the_factor() -> None:
    g = drawn(5, 4)
    given = split(g)
    expected = 0.5 * (0.7 * given.direction.raw @ P + 0.1 * torch.sign(g - g @ P.T @ P))
    assert torch.allclose(Sign(0.5, 0.1).update({}, given), expected, rtol=1e-12)


def test_the_residual_as_it_is_takes_the_scales_and_not_the_factor() -> None:
    g = drawn(5, 4)
    given = split(g)
    expected = 0.5 * (0.7 * given.direction.raw @ P + 0.1 * (g - g @ P.T @ P))
    assert torch.allclose(Raw(0.5, 0.1).update({}, given), expected, rtol=1e-12)


def test_rounding_has_no_signs() -> None:
    g = drawn(5, 2, seed=3) @ P
    for kind in (torch.float64, torch.float32):
        # nothing of the gradient is outside; what is left is rounding
        lift = lambda r: r @ P.to(r.dtype)  # noqa: E731
        given = dataclasses.replace(split(g), gradient=g.to(kind), small=(g @ P.T).to(kind), lift=lift)
        given = dataclasses.replace(given, direction=dataclasses.replace(given.direction, raw=given.direction.raw.to(kind)))
        assert (given.gradient - given.lift(given.small)).abs().max() > 0
        assert torch.allclose(Sign().update({}, given), Drop().update({}, given), rtol=1e-6)
    # a small residual is one
    bent = g.clone()
    bent[0] += 1e-9 * torch.linalg.svd(P).Vh[3]
    assert (Sign().update({}, split(bent)) - Drop().update({}, split(bent))).norm() > 1


def test_elements_without_a_residual_do_not_move() -> None:
    g = drawn(3, 4)
    given = dataclasses.replace(
        split(g, raw=torch.zeros(3, 2, dtype=torch.float64)), small=g[:, :2], lift=lambda r: torch.cat([r, torch.zeros_like(r)], 1)
    )
    assert torch.equal(Sign().update({}, given), torch.cat([torch.zeros(3, 2), g[:, 2:].sign()], 1))


@pytest.mark.parametrize("rule", [Sign, Raw])
def test_ranges_and_contract(rule: type) -> None:
    with pytest.raises(ValueError, match=r"scale must be > 0, found 0"):
        rule(scale=0.0)
    with pytest.raises(ValueError, match=r"inactive_scale must be >= 0, found -0\.1"):
        rule(inactive_scale=-0.1)
    for made in (rule(), rule(0.25, 0.1), rule(1.0, 0.0)):
        assert isinstance(made, Residual)
        check_residual(made)
