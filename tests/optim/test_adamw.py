from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from outlay.optim import AdamW, follow
from outlay.testing import check_optimizer


@pytest.mark.parametrize("fused", [False, True])
def test_three_steps_by_the_formula(fused: bool) -> None:
    gradients, lr, decay = [1.0, -0.5, 2.0], 0.02, 0.3
    spec = AdamW(beta1=0.8, beta2=0.9, eps=0.01, fused=fused)
    matrix, vector = nn.Parameter(torch.full((1, 1), 2.0, dtype=torch.float64)), nn.Parameter(torch.full((1,), 2.0, dtype=torch.float64))
    optimizer = spec.build([("w", matrix), ("b", vector)])
    follow(optimizer, "lr", lr)
    follow(optimizer, "weight_decay", decay)
    for gradient in gradients:
        matrix.grad, vector.grad = torch.full_like(matrix, gradient), torch.full_like(vector, gradient)
        optimizer.step()
    for got, its_decay in ((matrix.item(), decay), (vector.item(), 0.0)):
        w, m, v = 2.0, 0.0, 0.0
        for t, g in enumerate(gradients, 1):
            m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
            m_hat, v_hat = m / (1 - 0.8**t), v / (1 - 0.9**t)
            w -= lr * (m_hat / (math.sqrt(v_hat) + 0.01) + its_decay * w)
        assert got == pytest.approx(w, rel=1e-9)


def test_state_bytes_by_hand() -> None:
    assert AdamW().state_bytes({"a": (2, 3), "b": (3,)}) == (2 * 6 * 4 + 4) + (2 * 3 * 4 + 4)
    assert AdamW().state_bytes({"a": (2, 3)}, element_size=2) == 2 * 6 * 2 + 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beta1": 1.0}, r"beta1 and beta2 must lie in \[0, 1\), found 1.0 and 0.95"),
        ({"beta2": -0.1}, "found 0.9 and -0.1"),
        ({"eps": 0.0}, "eps must be > 0, found 0.0"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdamW(**fields)


@pytest.mark.parametrize("fused", [False, True])
def test_contract(fused: bool) -> None:
    check_optimizer(AdamW(fused=fused))
