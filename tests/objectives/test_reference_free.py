"""Preferences without a reference model: SimPO, ORPO and SLiC by their formulas, and parity with TRL."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_texts import GROUPS, bigram, groups, log_prob, same_gradient, text

from outlay.objectives import DirectPreference, OddsRatioPreference, SequenceCalibration, SimplePreference
from outlay.objectives.orpo import log_odds
from outlay.testing import check_objective

CHOSEN = [(0, 1), (3, 2)]


def sides(model: Any, mean: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Log probabilities, or their means, of the better and the worse answer of every pair."""
    made = [[log_prob(model, *GROUPS[row]) for row in pair] for pair in CHOSEN]
    better, worse = (torch.stack([pair[i].mean() if mean else pair[i].sum() for pair in made]) for i in (0, 1))
    return better, worse


def test_simpo_by_its_formula() -> None:
    model = bigram()
    better, worse = sides(model, mean=True)
    expected = -torch.sigmoid(2.5 * (better - worse) - 0.4).log().mean()
    loss, measures = SimplePreference()(model, groups(), {"beta": 2.5, "margin": 0.4})
    assert float(loss) == pytest.approx(float(expected), rel=1e-10)
    assert same_gradient(loss, expected, model)
    assert float(measures["margin"]) == pytest.approx(float((better - worse).mean()))
    defaults = -torch.sigmoid(2.0 * (better - worse) - 1.0).log().mean()
    assert float(SimplePreference()(model, groups(), {})[0]) == pytest.approx(float(defaults), rel=1e-10)


def test_simpo_without_a_margin_is_normalised_dpo_without_a_reference() -> None:
    model = bigram()
    one = SimplePreference()(model, groups(), {"beta": 3.0, "margin": 0.0})[0]
    other = DirectPreference(length_normalised=True, reference_free=True)(model, groups(), {"beta": 3.0})[0]
    assert float(one) == pytest.approx(float(other), rel=1e-12)
    assert same_gradient(one, other, model)


def test_orpo_by_its_formula() -> None:
    model = bigram()
    better, worse = (side.exp() for side in sides(model, mean=True))
    odds = (better / (1 - better)) / (worse / (1 - worse))
    parts = -torch.sigmoid(odds.log()).log()
    expected = (-better.log() + 0.3 * parts).mean()
    loss, measures = OddsRatioPreference()(model, groups(), {"beta": 0.3})
    assert float(loss) == pytest.approx(float(expected), rel=1e-10)
    assert same_gradient(loss, expected, model)
    assert float(measures["odds_loss"]) == pytest.approx(float(parts.mean()), rel=1e-10)


def test_odds_of_any_size_are_finite() -> None:
    at = torch.tensor([0.0, -1e-9, -1.0, -200.0], requires_grad=True)
    (slope,) = torch.autograd.grad(log_odds(at).sum(), at)
    assert log_odds(at).isfinite().all() and slope.isfinite().all()
    assert float(log_odds(torch.tensor(math.log(0.8)))) == pytest.approx(math.log(4), rel=1e-6)


def test_slic_by_its_formula() -> None:
    model = bigram()
    for margin in (0.0, 1.0, 30.0):
        better, worse = sides(model, mean=False)
        calibration = (margin - better + worse).clamp(min=0)
        expected = (calibration - 0.2 * better).mean()
        loss, measures = SequenceCalibration()(model, groups(), {"margin": margin, "regularisation": 0.2})
        assert float(loss) == pytest.approx(float(expected), rel=1e-10)
        assert same_gradient(loss, expected, model)
        assert float(measures["calibration"]) == pytest.approx(float(calibration.mean()), rel=1e-10)


def test_slic_is_held_by_the_reference_answer_of_its_question() -> None:
    model = bigram()
    rows = [([1], [2, 3]), ([1], [4]), ([1], [6, 6, 6]), ([5], [3]), ([5], [2, 2]), ([5], [1, 4])]
    batch = text(
        rows, group=[0, 0, 0, 1, 1, 1], reward=[1.0, 0.0, 0.0, 0.0, 0.0, 1.0], demonstration=[False, False, True, True, False, False]
    )
    p = [log_prob(model, *row).sum() for row in rows]
    kept = SequenceCalibration().prepare(model, batch, {})
    loss, _ = SequenceCalibration()(model, kept, {"margin": 50.0, "regularisation": 0.5})
    expected = 0.5 * (50 - p[0] + p[1] - 0.5 * p[2]) + 0.5 * (50 - p[5] + p[4] - 0.5 * p[3])
    assert float(loss) == pytest.approx(float(expected), rel=1e-10)
    assert same_gradient(loss, expected, model)


@pytest.mark.parametrize("objective", [SimplePreference(), OddsRatioPreference(), SequenceCalibration()])
def test_a_tie_teaches_nothing(objective: Any) -> None:
    model = bigram()
    tie = {name: column[6:] for name, column in groups().items()}
    loss, measures = objective(model, tie, {})
    assert (objective.weight(tie), float(loss), measures) == (0.0, 0.0, {})
    assert not torch.autograd.grad(loss, model.table)[0].any()
    assert objective.weight(groups()) == 2.0


def test_parity_of_simpo_with_trl() -> None:
    """TRL's loss on the same mean log probabilities; its gamma is ours, since it divides by beta and multiplies again."""
    cpo = pytest.importorskip("trl.experimental.cpo")
    trainer = cpo.CPOTrainer.__new__(cpo.CPOTrainer)
    trainer.alpha, trainer.loss_type, trainer.simpo_gamma, trainer.beta, trainer.label_smoothing = 0.0, "simpo", 0.5, 2.0, 0.0
    trainer.accelerator = torch.nn.Module()
    trainer.accelerator.device = "cpu"
    model = bigram()
    theirs = trainer.cpo_loss(*sides(model, mean=True))[0].mean()
    ours = SimplePreference()(model, groups(), {"beta": 2.0, "margin": 0.5})[0]
    assert float(ours) == pytest.approx(float(theirs), rel=1e-10)
    assert same_gradient(ours, theirs, model)


def test_parity_of_orpo_with_trl() -> None:
    """TRL's odds-ratio part on the same mean log probabilities. Its other part is the mean over all tokens of the chosen rows, prompts included,
    and ours an answer's mean over the answer's tokens, as the paper's equation 6 has it: that part is compared with its formula alone."""
    orpo = pytest.importorskip("trl.experimental.orpo")
    trainer = orpo.ORPOTrainer.__new__(orpo.ORPOTrainer)
    trainer.beta = 0.3
    trainer.accelerator = torch.nn.Module()
    trainer.accelerator.device = "cpu"
    model = bigram()
    better, worse = sides(model, mean=True)
    theirs = (-better - trainer.odds_ratio_loss(better, worse)[0]).mean()
    ours = OddsRatioPreference()(model, groups(), {"beta": 0.3})[0]
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    assert same_gradient(ours, theirs, model, 1e-6)


@pytest.mark.parametrize("objective", [SimplePreference(), OddsRatioPreference(), SequenceCalibration()])
def test_contract(objective: Any) -> None:
    check_objective(objective, bigram(), groups())
