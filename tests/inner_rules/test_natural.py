"""Natural gradients: the dense solve, its limits, single precision, and what is forgotten."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.inner_rules import Adam, Natural
from outlay.inner_rules.base import Clears, Direction, InnerRule
from outlay.inner_rules.natural import natural
from outlay.layout import Layout, Shape, Slots, State
from outlay.testing import check_inner_rule


class Handed:
    """Hands on what it is given."""

    elementwise: ClassVar[bool] = True

    def layout(self, shape: Shape) -> Layout:
        return {}

    def direction(self, state: State, g: torch.Tensor, step: int) -> Direction:
        return Direction(g.clone())


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def directions(rule: Natural, steps: list[torch.Tensor]) -> list[torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    Slots(state, "").fill(rule.layout(tuple(steps[0].shape)), steps[0])
    return [rule.direction(state, g, step).raw for step, g in enumerate(steps, 1)]


@given(st.integers(1, 6), st.integers(1, 9), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_every_direction_is_the_dense_solve_over_the_last_gradients(history: int, count: int, damping: float, seed: int) -> None:
    steps = [drawn(3, 2, seed=seed + 100 * i) for i in range(count)]
    for t, got in enumerate(directions(Natural(history, damping, Handed()), steps), 1):
        last = torch.stack([g.flatten() for g in steps[max(0, t - history) : t]], 1)
        fisher = damping * torch.eye(6, dtype=torch.float64) + last @ last.T
        expected = torch.linalg.solve(fisher, steps[t - 1].flatten()).view(3, 2)
        assert torch.allclose(got, expected, rtol=1e-6, atol=1e-9 * float(steps[t - 1].norm()) / damping)


def test_limits() -> None:
    steps = [drawn(3, 2, seed=i) for i in range(4)]
    # alone: divided by damping and the square of its length
    assert torch.allclose(directions(Natural(1, 0.1, Handed()), steps)[3], steps[3] / (0.1 + steps[3].norm() ** 2), rtol=1e-12)
    # much damping: the gradient's direction
    assert torch.allclose(directions(Natural(4, 1e9, Handed()), steps)[3] * 1e9, steps[3], rtol=1e-6)
    # orthogonal ones do not know of each other
    apart = [torch.eye(4, dtype=torch.float64)[i] * (i + 1) for i in range(4)]
    for g, got in zip(apart, directions(Natural(4, 0.5, Handed()), apart), strict=True):
        assert torch.allclose(got, g / (0.5 + g.norm() ** 2), rtol=1e-12)


def test_single_precision_and_long_gradients_keep_their_digits() -> None:
    # the usual form of the identity is off by a third here: its difference leaves no digit
    rows = torch.stack([drawn(200, seed=i) for i in range(5)]) * 10
    exact = torch.linalg.solve(1e-3 * torch.eye(200, dtype=torch.float64) + rows.T @ rows, rows[3])
    got = natural(rows.float(), 3, 1e-3).double()
    assert (got - exact).norm() < 1e-4 * exact.norm()
    h = rows.float().T
    z = torch.linalg.solve(torch.eye(5) + h.T @ h / 1e-3, h.T @ h[:, 3])
    usual = (h[:, 3] / 1e-3 - h @ z / 1e-6).double()
    assert (usual - exact).norm() > 0.1 * exact.norm()


def test_equal_gradients_are_no_obstacle() -> None:
    same = [drawn(3, 2).float() * 100] * 8
    for got in directions(Natural(5, 1e-3, Handed()), same):
        assert bool(got.isfinite().all()) and torch.cosine_similarity(got.flatten(), same[0].flatten(), dim=0) > 0.9999
    # five of a kind: a fifth
    assert torch.allclose(got, same[0] / (5 * same[0].norm() ** 2), rtol=1e-4)


def test_clearing_forgets_gradients_and_no_moments() -> None:
    rule, g = Natural(3, 0.1, Adam()), drawn(3, 2)
    state: dict[str, torch.Tensor] = {}
    Slots(state, "").fill(rule.layout((3, 2)), g)
    for step in range(1, 4):
        rule.direction(state, drawn(3, 2, seed=step), step)
    moments = state["then.m"].clone()
    rule.clear(state)
    assert not state["gradients"].any() and torch.equal(state["then.m"], moments) and bool(moments.any())
    rule.direction(state, g, 4)
    assert torch.allclose(state["then.m"], 0.9 * moments + 0.1 * g / (0.1 + g.norm() ** 2), rtol=1e-9)


def test_what_it_is_and_contract() -> None:
    rule = Natural(4)
    assert isinstance(rule, InnerRule) and isinstance(rule, Clears)
    assert {name: slot.shape for name, slot in rule.layout((6, 2)).items()} == {
        "gradients": (4, 12), "then.m": (6, 2), "then.v": (6, 2),
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"history must be >= 1, found 0"):
        Natural(0)
    with pytest.raises(ValueError, match=r"damping must be > 0, found -1"):
        Natural(damping=-1.0)
    check_inner_rule(rule)
    check_inner_rule(Natural(2, 10.0, Adam(late_eps=True)))
