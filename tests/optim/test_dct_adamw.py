"""DCT-AdamW: its readable twin, what feedback and rotation add, its limits, and what it keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_steps import drive, gradients, kept, updates

from outlay.formats import Bf16, Integer
from outlay.inner_rules import Adam
from outlay.optim import DctAdamW, Subspace
from outlay.optim.dct_adamw import reference_dct_adamw
from outlay.projectors.dct import cosines
from outlay.testing import check_optimizer

START = gradients(1, seed=9)[0]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"period": 7},
        {"period": None},
        {"score": "l2"},
        {"fft": True},
        {"feedback": True},
        {"feedback": True, "period": 3},
        {"beta1": 0.5, "beta2": 0.9, "eps": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_hundred_steps_agree_with_the_readable_twin(fields: dict[str, Any], decay: float) -> None:
    spec, steps = DctAdamW(rank=2, **fields), gradients(100)
    expected = reference_dct_adamw(START, steps, spec, lr=0.01, decay=decay)
    assert torch.allclose(drive(spec, START, steps, lr=0.01, weight_decay=decay), expected, rtol=1e-9)
    # a wide matrix is its transpose
    wide = drive(spec, START.T, [g.T for g in steps], lr=0.01, weight_decay=decay)
    assert torch.allclose(wide.T, expected, rtol=1e-9)


def test_moments_are_carried_over_with_the_columns_that_stay() -> None:
    q = torch.tensor([[math.cos(math.pi * i * (2 * j + 1) / 8) for j in range(4)] for i in range(4)], dtype=torch.float64)
    q = q * torch.tensor([0.5, 0.5**0.5, 0.5**0.5, 0.5**0.5], dtype=torch.float64)[:, None]
    first, second = torch.zeros(6, 4, dtype=torch.float64), torch.zeros(6, 4, dtype=torch.float64)
    first[:, 0], first[:, 1] = 4.0, 2.0
    second[:, 1], second[:, 3] = 4.0, 2.0
    one, two = (update @ q for update in updates(DctAdamW(rank=2), [first @ q.T, second @ q.T]))
    assert torch.allclose(one, first.sign(), atol=1e-7)
    # column 1 has two gradients, 2 and 4, column 3 one of 2 at the second step, and column 0 is forgotten
    expected = torch.zeros(6, 4, dtype=torch.float64)
    expected[:, 1] = (0.9 * 0.1 * 2 + 0.1 * 4) / 0.19 / math.sqrt((0.999 * 0.001 * 4 + 0.001 * 16) / (1 - 0.999**2))
    expected[:, 3] = 0.1 * 2 / 0.19 / math.sqrt(0.001 * 4 / (1 - 0.999**2))
    assert torch.allclose(two, expected, atol=1e-7)


def test_all_directions_are_adam_along_the_waves() -> None:
    steps, basis = gradients(20), cosines(4, START)
    whole = drive(Subspace(full=Adam()), START @ basis, [g @ basis for g in steps], name="embed", lr=0.01)
    assert torch.allclose(drive(DctAdamW(rank=4), START, steps, lr=0.01), whole @ basis.T, rtol=1e-9)


def test_feedback_brings_what_was_left_later() -> None:
    once = [gradients(1)[0], *[torch.zeros(6, 4, dtype=torch.float64)] * 3]
    silent, heard = (updates(DctAdamW(rank=1, feedback=feedback), once) for feedback in (False, True))
    # with rank 1 a gradient's four columns come one a step: all of them have been stepped along when nothing else comes
    assert torch.linalg.matrix_rank(torch.cat(silent)) == 1
    assert torch.linalg.matrix_rank(torch.cat(heard)) == 4


def test_what_it_keeps() -> None:
    assert kept(DctAdamW(rank=2), (6, 4)) == {"step": 1, "projector.indices": 2, "inner.m": 12, "inner.v": 12}
    assert kept(DctAdamW(rank=2, feedback=True), (6, 4)) == {
        "step": 1, "residual.error": 24, "projector.indices": 2, "inner.m": 12, "inner.v": 12,
    }  # fmt: skip
    shapes = {"a": (6, 4), "b": (4, 8), "embed.weight": (9, 4), "c": (4,)}
    small = 4 * (2 * 2 * 6 + 2 * 2 * 8) + 4 * (2 + 2) + 4 * 4 * 4 + 4 * 2 * (36 + 4) + 4 * 4
    assert DctAdamW(rank=2).state_bytes(shapes) == small
    assert DctAdamW(rank=2, feedback=True).state_bytes(shapes) == small + 4 * (24 + 32)
    assert DctAdamW(rank=2, feedback=True, error_states=Bf16()).state_bytes(shapes) == small + 2 * (24 + 32)
    assert DctAdamW(rank=2, states=Bf16()).state_bytes(shapes) == small - 2 * (2 * 2 * 6 + 2 * 2 * 8) - 2 * 2 * (36 + 4)


def test_an_error_that_is_not_fed_back_is_not_kept() -> None:
    with pytest.raises(ValueError, match="feedback must be true, found false"):
        DctAdamW(error_states=Bf16())
    with pytest.raises(ValueError, match="rank must be >= 1, found 0"):
        DctAdamW(rank=0)


@pytest.mark.parametrize(
    "spec",
    [
        DctAdamW(rank=2),
        DctAdamW(rank=2, feedback=True, period=2),
        DctAdamW(rank=2, feedback=True, error_states=Bf16(), states=Bf16()),
        DctAdamW(rank=2, feedback=True, error_states=Integer(bits=4)),
    ],
    ids=str,
)
def test_contract(spec: DctAdamW) -> None:
    check_optimizer(spec)
