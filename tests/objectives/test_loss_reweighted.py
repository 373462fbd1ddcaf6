"""Loss-based reweighting: weights by hand and in their limits, the gradient, and the same update however a batch is cut."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_texts import DEMONSTRATIONS, bigram, log_prob, same_gradient, text

import outlay
from outlay.models import Mlp
from outlay.objectives import Classification, LossReweighted
from outlay.objectives.base import Surveys
from outlay.objectives.loss_reweighted import weights_of
from outlay.testing import check_objective
from outlay.train import load_recipe

POLICY = bigram()
STRATEGIES = ["lin_upper", "quadratic", "extremes"]


def each() -> torch.Tensor:
    return torch.stack([-log_prob(POLICY, *row).mean() for row in DEMONSTRATIONS])


def by_hand(losses: torch.Tensor, strategy: str, r: float) -> torch.Tensor:
    low, high = float(losses.min()), float(losses.max())
    worth = []
    for loss in losses.tolist():
        x = (2 * loss - (high + low)) / (high - low)
        worth.append(math.exp({"lin_upper": min(x + 1, 1), "quadratic": 1 - x * x, "extremes": abs(x)}[strategy] / r))
    return torch.tensor([w / sum(worth) for w in worth], dtype=torch.float64)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("r", [0.4, 1.0])
def test_loss_and_gradient_by_hand(strategy: Any, r: float) -> None:
    weights = by_hand(each().detach(), strategy, r)
    loss, measures = LossReweighted(strategy, r)(POLICY, text(DEMONSTRATIONS), {})
    assert loss.item() == pytest.approx(float((weights * each()).sum().detach()))
    assert same_gradient(loss, (weights * each()).sum(), POLICY)
    assert float(measures["plain_loss"]) == pytest.approx(float(each().mean().detach()))
    assert float(measures["divergence"]) == pytest.approx(float((weights * (4 * weights).log()).sum()))


@given(st.lists(st.floats(0, 10), min_size=2, max_size=8, unique=True), st.floats(0.1, 5), st.floats(-3, 3))
def test_only_the_order_and_ratios_of_differences_count(losses: list[float], scale: float, shift: float) -> None:
    some = torch.tensor(losses, dtype=torch.float64)
    if float(some.max() - some.min()) * min(scale, 1) < 1e-3:
        return
    for strategy in STRATEGIES:
        found = weights_of(some, strategy)  # type: ignore[arg-type]
        assert torch.allclose(found, weights_of(scale * some + shift, strategy), rtol=1e-8)  # type: ignore[arg-type]
        assert float(found.sum()) == pytest.approx(1)


def test_equal_losses_and_a_large_r_are_the_plain_mean() -> None:
    for strategy in STRATEGIES:
        assert weights_of(torch.full((5,), 1.7), strategy).tolist() == pytest.approx([0.2] * 5)  # type: ignore[arg-type]
        assert weights_of(torch.tensor([3.0]), strategy).tolist() == [1.0]  # type: ignore[arg-type]
        far = weights_of(torch.tensor([1.0, 2.0, 4.0]), strategy, r=1e6)  # type: ignore[arg-type]
        assert far.tolist() == pytest.approx([1 / 3] * 3, rel=1e-5)


def test_extreme_weights() -> None:
    losses = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    lin = weights_of(losses, "lin_upper", 0.4)
    assert float(lin[2] / lin[0]) == pytest.approx(math.exp(2.5)) == pytest.approx(12.18, abs=0.01)
    assert lin[2:].tolist() == pytest.approx([float(lin[2])] * 3)
    assert float(lin[1] / lin[0]) == pytest.approx(math.exp(1.25))
    quadratic = weights_of(losses, "quadratic", 0.4)
    assert float(quadratic[0]) == pytest.approx(float(quadratic[4])) == pytest.approx(float(quadratic[2]) * math.exp(-2.5))
    extremes = weights_of(losses, "extremes", 0.4)
    assert float(extremes[0]) == pytest.approx(float(extremes[4])) == pytest.approx(float(extremes[2]) * math.exp(2.5))
    assert weights_of(losses, "lin_upper", 1e-3).tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])


def test_focus_is_the_burn_in() -> None:
    one, batch = LossReweighted(), text(DEMONSTRATIONS)
    plain, measures = one(POLICY, batch, {"focus": 0.0})
    assert plain.item() == pytest.approx(float(each().mean().detach())) and float(measures["divergence"]) == pytest.approx(0, abs=1e-12)
    assert same_gradient(plain, each().mean(), POLICY)
    half, _ = one(POLICY, batch, {"focus": 0.5})
    assert half.item() == pytest.approx(LossReweighted(r=0.8)(POLICY, batch, {})[0].item())


def test_rows_without_a_label_have_no_influence() -> None:
    bare = text([*DEMONSTRATIONS, ([1, 2, 3], [])])
    one = LossReweighted()
    assert one.weight(bare) == 4
    loss, measures = one(POLICY, bare, {})
    wanted, expected = one(POLICY, text(DEMONSTRATIONS), {})
    assert loss.item() == pytest.approx(wanted.item()) and same_gradient(loss, wanted, POLICY)
    assert {name: float(value) for name, value in measures.items()} == pytest.approx(
        {name: float(value) for name, value in expected.items()}
    )
    nothing, _ = one(POLICY, text([([1, 2], [])]), {})
    assert nothing.item() == 0.0 and nothing.requires_grad


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_contract(strategy: Any) -> None:
    one, batch = LossReweighted(strategy), text(DEMONSTRATIONS)
    assert isinstance(one, Surveys)
    fixed = one.survey(POLICY, batch, {})["row_weight"]
    assert float(fixed.mean()) == pytest.approx(1)
    check_objective(one, POLICY, batch, gradient_of=lambda model, given: one(model, {**given, "row_weight": fixed}, {})[0])


def test_classes_and_their_contract() -> None:
    made = torch.Generator().manual_seed(0)
    batch = {"inputs": torch.randn(6, 3, generator=made), "labels": torch.tensor([0, 1, 1, 0, 1, 0])}
    model = Mlp(inputs=3, classes=2, hidden=(4,)).build(0).module
    one = LossReweighted("quadratic")
    losses = torch.nn.functional.cross_entropy(model(batch["inputs"]), batch["labels"], reduction="none")
    loss, _ = one(model, batch, {})
    assert loss.item() == pytest.approx((weights_of(losses.detach(), "quadratic") * losses).sum().item())
    assert one(model, batch, {"focus": 0.0})[0].item() == pytest.approx(Classification()(model, batch, {})[0].item())
    check_objective(one, model, batch, differences=False)


def test_a_run_learns_the_same_however_its_batches_are_cut(tmp_path: Path) -> None:
    ends = []
    for micro_batch in (16, 5):
        knobs = {
            "lr": 0.01,
            "focus": {"peak": 1.0, "schedule": {"sequence": {"pieces": [{"constant": {"level": 0.0}}, "constant"], "shares": [1, 4]}}},
        }
        stage = {"source": {"images": {"name": "digits"}}, "objective": "loss_reweighted", "batch_size": 16, "knobs": knobs}
        model = {"mlp": {"inputs": 64, "classes": 10, "hidden": [8]}}
        recipe = load_recipe({"budget": "5 steps", "model": model, "stages": [stage], "micro_batch": micro_batch, "threads": 1})
        outlay.run(recipe, tmp_path / str(micro_batch))
        journal = outlay.train.journal.read_journal(tmp_path / str(micro_batch))
        steps = [line for line in journal if line["kind"] == "step"]
        assert steps[0]["metrics"]["divergence"] == pytest.approx(0, abs=1e-6) and steps[1]["metrics"]["divergence"] > 0.01
        ends.append([line["loss"] for line in steps])
    assert ends[0] == pytest.approx(ends[1], rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"r": 0.0}, "r must be"), ({"r": math.inf}, "r must be"), ({"strategy": "upper"}, "lin_upper, quadratic, extremes")],
)
def test_ranges(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossReweighted(**fields)
