"""f-divergence fine-tuning: conjugates worked out numerically, the restraint of each, and plain fine-tuning where they coincide."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_texts import DEMONSTRATIONS, Bigram, bigram, log_prob, same_gradient, text

from outlay.errors import InputError
from outlay.objectives import FDivergence, NextToken
from outlay.objectives.f_divergence import CONJUGATES
from outlay.testing import check_objective

BATCH = text(DEMONSTRATIONS)
GENERATORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "total_variation": lambda t: 0.5 * (t - 1).abs(),
    "pearson": lambda t: (t - 1) ** 2,
    "kl": lambda t: torch.special.xlogy(t, t) - t + 1,
}


def prepared(kind: Any, start: Bigram, model: Bigram) -> tuple[FDivergence, dict[str, torch.Tensor]]:
    objective: Any = FDivergence(kind).bind(lambda: start)
    return objective, objective.prepare(model, BATCH, {})


@pytest.mark.parametrize("kind", list(CONJUGATES))
@pytest.mark.parametrize("u", [-0.5, -0.2, 0.0, 0.3, 0.5])
def test_the_loss_is_the_conjugate_of_the_generator(kind: str, u: float) -> None:
    t = torch.linspace(0, 20, 2_000_001, dtype=torch.float64)
    supremum = float((t * u - GENERATORS[kind](t)).max())
    assert float(CONJUGATES[kind](torch.tensor(-u, dtype=torch.float64))) == pytest.approx(supremum, abs=1e-9)


@pytest.mark.parametrize("kind", list(CONJUGATES))
def test_by_its_formula(kind: str) -> None:
    model, start = bigram(0), bigram(1)
    objective, batch = prepared(kind, start, model)
    rho = torch.cat([log_prob(model, *row) - log_prob(start, *row).detach() for row in DEMONSTRATIONS])
    expected = {"total_variation": -rho, "pearson": -rho + rho**2 / 4, "kl": torch.exp(-rho) - 1}[kind].mean()
    loss, measures = objective(model, batch, {})
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)
    assert float(measures["log_ratio"]) == pytest.approx(float(rho.mean()), rel=1e-12)
    assert same_gradient(loss, expected, model)


@pytest.mark.parametrize("kind", list(CONJUGATES))
def test_at_the_start_every_gradient_is_plain_fine_tunings(kind: str) -> None:
    model = bigram()
    objective, batch = prepared(kind, Bigram(model.table.detach()), model)
    assert same_gradient(objective(model, batch, {})[0], NextToken()(model, BATCH, {})[0], model)


def test_total_variation_is_plain_fine_tuning_wherever_the_model_is() -> None:
    model, start = bigram(0), bigram(1)
    objective, batch = prepared("total_variation", start, model)
    loss, plain = objective(model, batch, {})[0], NextToken()(model, BATCH, {})[0]
    assert float(loss - plain) == pytest.approx(float(NextToken()(start, BATCH, {})[0]) * -1.0, rel=1e-9)
    assert same_gradient(loss, plain, model)


def test_pearson_turns_back_at_a_log_ratio_of_2_and_kl_never_does() -> None:
    rho = torch.tensor([1.9, 2.0, 2.1, 9.0], dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(CONJUGATES["pearson"](rho).sum(), rho)[0]
    assert slope.tolist() == pytest.approx([-0.05, 0.0, 0.05, 3.5])
    slope = torch.autograd.grad(CONJUGATES["kl"](rho).sum(), rho)[0]
    assert slope.tolist() == pytest.approx([-math.exp(-value) for value in rho.tolist()])


def test_pearson_ends_with_a_log_ratio_of_2_where_it_can_be_had() -> None:
    start = Bigram(torch.zeros(20, 20))
    model = Bigram(start.table.detach())
    objective: Any = FDivergence("pearson").bind(lambda: start)
    batch = objective.prepare(model, text([([0], [1])]), {})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        loss, measures = objective(model, batch, {})
        loss.backward()
        optimizer.step()
    assert float(measures["log_ratio"]) == pytest.approx(2.0, abs=1e-3)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="divergence must be one of total_variation, pearson, kl, found 'hellinger'"):
        FDivergence("hellinger")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="objectives/f_divergence compares with the model as it was"):
        FDivergence().prepare(bigram(), BATCH, {})
    with pytest.raises(InputError, match="needs the column reference"):
        FDivergence()(bigram(), BATCH, {})


@pytest.mark.parametrize("kind", list(CONJUGATES))
def test_contract(kind: Any) -> None:
    check_objective(FDivergence(kind), bigram(), BATCH, frozen=bigram(2))
