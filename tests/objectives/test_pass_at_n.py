"""Direct coverage optimisation: the stable form at every size, the brake on cross entropy, steps, and the best confidence for N attempts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_texts import DEMONSTRATIONS, bigram, log_prob, same_gradient, text
from torch import nn

from outlay.models import Mlp
from outlay.objectives import Classification, PassAtN, PassAtNClassification
from outlay.objectives.pass_at_n import brake, coverage_loss
from outlay.testing import check_objective

BATCH = text(DEMONSTRATIONS)


def double(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


@given(st.floats(min_value=1e-4, max_value=0.999), st.integers(1, 200))
def test_loss_and_brake_by_their_formulas(p: float, attempts: int) -> None:
    lp = double(math.log(p))
    loss = coverage_loss(lp, attempts)
    missed = (1 - p) ** attempts
    assert float(loss) == pytest.approx(-math.log1p(-missed), rel=1e-6, abs=1e-12)
    factor = attempts * p * (1 - p) ** (attempts - 1) / (1 - missed)
    assert float(brake(lp, attempts)) == pytest.approx(factor, rel=1e-6, abs=1e-12)
    assert -float(torch.autograd.grad(loss, lp)[0]) == pytest.approx(factor, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("attempts", [1.0, 2.0, 7.5, 1e4])
@pytest.mark.parametrize("lp", [-1e6, -200.0, -90.0, -14.001, -13.999, -1.0, -1e-5, -1e-9, 0.0])
def test_finite_at_every_size(lp: float, attempts: float, dtype: torch.dtype) -> None:
    at = torch.tensor(lp, dtype=dtype, requires_grad=True)
    loss = coverage_loss(at, attempts)
    (slope,) = torch.autograd.grad(loss, at)
    assert math.isfinite(float(loss)) and math.isfinite(float(slope))
    assert float(loss) >= -1e-6 and -1 - 1e-5 <= float(slope) <= 0
    if lp <= -90:  # too rare for any number of attempts: log N is gained, and the gradient is cross entropy's
        assert float(loss) == pytest.approx(-lp - math.log(attempts), rel=1e-6)
        assert float(slope) == pytest.approx(-1.0, abs=1e-6)
        assert float(brake(at, attempts)) == pytest.approx(1.0, abs=2e-5 * max(1.0, abs(lp)))


@pytest.mark.parametrize("attempts", [2.0, 100.0, 1e5])
@pytest.mark.parametrize("edge", ["rare", "small"])
def test_the_branches_meet(attempts: float, edge: str) -> None:
    # log p = -14 on one side of which log u is expanded, and u = 1e-4 on one side of which its logarithm is
    lp = -14.0 if edge == "rare" else math.log(-math.expm1(-1e-4 / attempts))
    below, above = (double(lp * (1 + sign * 1e-10)) for sign in (1, -1))
    assert float(coverage_loss(below, attempts)) == pytest.approx(float(coverage_loss(above, attempts)), rel=1e-8)
    slopes = [float(torch.autograd.grad(coverage_loss(at, attempts), at)[0]) for at in (below, above)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-6)


@given(st.floats(min_value=-12, max_value=-1e-3), st.floats(min_value=1, max_value=100))
def test_the_brake_tightens_with_the_probability_and_with_the_attempts(lp: float, attempts: float) -> None:
    here = float(brake(double(lp), attempts))
    assert 0 < here <= 1 + 1e-9
    assert float(brake(double(lp * 0.9), attempts)) <= here + 1e-9
    assert float(brake(double(lp), attempts * 1.1)) <= here + 1e-9


def test_one_attempt_is_cross_entropy_an_answer() -> None:
    model = bigram()
    loss, measures = PassAtN()(model, BATCH, {"attempts": 1.0})
    expected = torch.stack([-log_prob(model, *row).sum() for row in DEMONSTRATIONS]).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)
    assert same_gradient(loss, expected, model)
    assert float(measures["brake"]) == 1.0
    assert PassAtN().weight(BATCH) == 4.0


def test_answers_by_their_formula() -> None:
    model = bigram()
    p = torch.stack([log_prob(model, *row).sum() for row in DEMONSTRATIONS]).exp()
    loss, measures = PassAtN()(model, BATCH, {"attempts": 5.0})
    expected = -(1 - (1 - p) ** 5).log().mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-9)
    assert same_gradient(loss, expected, model)
    assert float(measures["probability"]) == pytest.approx(float(p.mean()))


def test_steps_end_with_their_separator() -> None:
    model = bigram()
    rows = [([1], [2, 3, 0, 4, 5]), ([2], [0, 6, 6, 0]), ([4], [1])]
    chunks = [([1], [2, 3, 0]), ([0], [4, 5]), ([2], [0]), ([0], [6, 6, 0]), ([4], [1])]
    p = torch.stack([log_prob(model, *row).sum() for row in chunks]).exp()
    loss, _ = PassAtN(separators=(0,))(model, text(rows), {"attempts": 3.0})
    assert float(loss) == pytest.approx(float(-(1 - (1 - p) ** 3).log().mean()), rel=1e-9)
    assert PassAtN(separators=(0,)).weight(text(rows)) == 5.0
    assert torch.equal(PassAtN(separators=())(model, text(rows), {})[0], PassAtN()(model, text(rows), {})[0])


def test_more_attempts_want_less_confidence() -> None:
    """Of two classes the first is right with chance q. One attempt wants p = q; two want p where q (1 - p)^2 (1 + p) = (1 - q) p^2 (2 - p)."""
    q = 0.8
    p = torch.linspace(1e-4, 1 - 1e-4, 200_001, dtype=torch.float64)
    best = {}
    for attempts in (1, 2, 4, 16):
        loss = q * coverage_loss(p.log(), attempts) + (1 - q) * coverage_loss((1 - p).log(), attempts)
        best[attempts] = float(p[loss.argmin()])
    assert best[1] == pytest.approx(q, abs=1e-5)
    assert q * (1 - best[2]) ** 2 * (1 + best[2]) == pytest.approx((1 - q) * best[2] ** 2 * (2 - best[2]), abs=1e-5)
    assert best[1] > best[2] > best[4] > best[16] > 0.5


def classified() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    model = Mlp(inputs=5, classes=3, hidden=(4,)).build(0).module
    return model, {"inputs": torch.randn(6, 5, generator=draw), "labels": torch.randint(3, (6,), generator=draw)}


def test_classes() -> None:
    model, batch = classified()
    one, plain = PassAtNClassification()(model, batch, {"attempts": 1.0})[0], Classification()(model, batch, {})[0]
    assert float(one) == pytest.approx(float(plain), rel=1e-6)
    p = model(batch["inputs"]).softmax(-1).gather(1, batch["labels"][:, None]).squeeze(1)
    loss, measures = PassAtNClassification()(model, batch, {"attempts": 4.0})
    assert float(loss) == pytest.approx(float(-(1 - (1 - p) ** 4).log().mean()), rel=1e-5)
    assert float(measures["coverage"]) == pytest.approx(float((1 - (1 - p) ** 4).mean()), rel=1e-5)


def test_a_batch_without_a_label_teaches_nothing() -> None:
    model = bigram()
    batch = {**BATCH, "labels": torch.full_like(BATCH["labels"], -100)}
    loss, _ = PassAtN()(model, batch, {})
    assert (float(loss), PassAtN().weight(batch)) == (0.0, 0.0)
    assert not torch.autograd.grad(loss, model.table)[0].any()


def test_less_than_one_attempt_is_refused() -> None:
    with pytest.raises(ValueError, match="the knob attempts must be >= 1, found 0.5"):
        PassAtN()(bigram(), BATCH, {"attempts": 0.5})


@pytest.mark.parametrize("objective", [PassAtN(), PassAtN(separators=(1, 3))])
def test_contract(objective: Any) -> None:
    check_objective(objective, bigram(), BATCH)


def test_contract_of_classes() -> None:
    model, batch = classified()
    check_objective(PassAtNClassification(), model, batch)
