from __future__ import annotations

import pytest
import torch
from torch import nn

from outlay.optim import Sgd, follow
from outlay.optim.base import SCALES
from outlay.testing import check_optimizer


def run(nesterov: bool, gradients: list[float], decay: float, momentum: float, lr: float) -> tuple[float, float]:
    """One matrix of one entry and one vector of one entry, both 2.0 at the start, after a step for each gradient."""
    matrix, vector = nn.Parameter(torch.full((1, 1), 2.0, dtype=torch.float64)), nn.Parameter(torch.full((1,), 2.0, dtype=torch.float64))
    optimizer = Sgd(nesterov=nesterov).build([("w", matrix), ("b", vector)])
    for name, value in (("lr", lr), ("weight_decay", decay), ("momentum", momentum)):
        follow(optimizer, name, value)
    for gradient in gradients:
        matrix.grad, vector.grad = torch.full_like(matrix, gradient), torch.full_like(vector, gradient)
        optimizer.step()
    return matrix.item(), vector.item()


@pytest.mark.parametrize("nesterov", [False, True])
def test_three_steps_by_the_formula(nesterov: bool) -> None:
    gradients, decay, momentum, lr = [1.0, -0.5, 2.0], 0.1, 0.8, 0.05
    for got, its_decay in zip(run(nesterov, gradients, decay, momentum, lr), (decay, 0.0), strict=True):
        w, u = 2.0, 0.0
        for number, gradient in enumerate(gradients):
            g = gradient + its_decay * w
            u = g if number == 0 else momentum * u + g
            w -= lr * (g + momentum * u if nesterov else u)
        assert got == pytest.approx(w, rel=1e-12)


def test_plain_gradient_descent_by_hand() -> None:
    # w = 2 - 0.5 * (1 + 0.1 * 2) = 1.4; the vector does not decay: 2 - 0.5 = 1.5
    assert run(False, [1.0], 0.1, 0.0, 0.5) == pytest.approx((1.4, 1.5))


def test_groups_and_state() -> None:
    parameters = [(f"p{i}", nn.Parameter(torch.zeros(shape))) for i, shape in enumerate([(2, 3), (3,), (1, 2, 2), ()])]
    matrices, vectors = Sgd().build(parameters).param_groups
    assert [p.dim() for p in matrices["params"]] == [2, 3]
    assert [p.dim() for p in vectors["params"]] == [1, 0]
    assert (matrices[SCALES], vectors[SCALES]) == ({}, {"weight_decay": 0.0})
    assert Sgd().state_bytes({"a": (2, 3), "b": (3,), "c": ()}) == 4 * (6 + 3 + 1)
    assert Sgd().state_bytes({"a": (2, 3)}, element_size=2) == 12
    assert len(Sgd().build(parameters[1:2]).param_groups) == 1


def test_contract() -> None:
    check_optimizer(Sgd())
    check_optimizer(Sgd(nesterov=True), [(5, 2), (2,), (2,)])
