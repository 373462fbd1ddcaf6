"""Direct preference optimisation: each loss by its formula, what the reference does, and parity with TRL's trainer."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import GROUPS, Bigram, bigram, groups, log_prob, same_gradient, text
from trl_peers import PAIRS, START, TRAINED, agree, as_ours, peer

from outlay.catalog import make
from outlay.errors import InputError
from outlay.objectives import DirectPreference
from outlay.objectives.pairs import PairChoice
from outlay.testing import check_objective

#: rows (better, worse) of the two groups that give a pair
CHOSEN = [(0, 1), (3, 2)]


def prepared(objective: DirectPreference, model: Bigram, start: Bigram, batch: Any = None) -> tuple[Any, dict[str, torch.Tensor]]:
    bound: Any = objective.bind(lambda: start)
    return bound, bound.prepare(model, groups() if batch is None else batch, {})


def differences(model: Bigram, start: Bigram | None, mean: bool = False) -> torch.Tensor:
    found = []
    for pair in CHOSEN:
        ratios = [log_prob(model, *GROUPS[row]) - (0.0 if start is None else log_prob(start, *GROUPS[row]).detach()) for row in pair]
        better, worse = (ratio.mean() if mean else ratio.sum() for ratio in ratios)
        found.append(better - worse)
    return torch.stack(found)


def s(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x)


FORMULAS: dict[str, tuple[float, Callable[[torch.Tensor], torch.Tensor]]] = {
    "sigmoid": (0.0, lambda d: -s(0.3 * d).log()),
    "robust": (0.2, lambda d: (-0.8 * s(0.3 * d).log() + 0.2 * s(-0.3 * d).log()) / 0.6),
    "hinge": (0.0, lambda d: (1 - 0.3 * d).clamp(min=0)),
    "ipo": (0.0, lambda d: (d - 1 / 0.6) ** 2),
    "exo": (0.1, lambda d: s(0.3 * d) * (s(0.3 * d) / 0.9).log() + s(-0.3 * d) * (s(-0.3 * d) / 0.1).log()),
}


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("loss", list(FORMULAS))
def test_by_its_formula(loss: Any, free: bool, mean: bool) -> None:
    model, start = bigram(0), bigram(1)
    smoothing, formula = FORMULAS[loss]
    objective, batch = prepared(DirectPreference(loss, smoothing, mean, free), model, start)
    d = differences(model, None if free else start, mean)
    found, measures = objective(model, batch, {"beta": 0.3})
    assert float(found) == pytest.approx(float(formula(d).mean()), rel=1e-10)
    assert same_gradient(found, formula(d).mean(), model)
    assert float(measures["margin"]) == pytest.approx(float(d.mean()), rel=1e-10)
    assert float(measures["pair_accuracy"]) == pytest.approx(float((d > 0).double().mean()))
    assert float(measures["better"] - measures["worse"]) == pytest.approx(float(d.mean()), rel=1e-10)
    assert objective.weight(batch) == 2.0


def test_conservative_labels_are_a_mixture_of_both_orders() -> None:
    model, start = bigram(0), bigram(1)
    d = differences(model, start)
    objective, batch = prepared(DirectPreference("sigmoid", 0.25), model, start)
    expected = (-0.75 * s(0.1 * d).log() - 0.25 * s(-0.1 * d).log()).mean()
    assert float(objective(model, batch, {})[0]) == pytest.approx(float(expected), rel=1e-10)


def test_robust_losses_are_right_on_average_when_labels_flip() -> None:
    e, d = 0.3, torch.tensor([-2.0, 0.1, 5.0], dtype=torch.float64)
    from outlay.objectives.dpo import robust, sigmoid

    flipped = (1 - e) * robust(d, 1.0, e) + e * robust(-d, 1.0, e)
    assert torch.allclose(flipped, sigmoid(d, 1.0, 0.0))


def test_at_the_start_every_loss_is_known() -> None:
    model = bigram()
    start = Bigram(model.table.detach())
    for fields, expected in (({}, math.log(2)), ({"loss": "hinge"}, 1.0), ({"loss": "ipo"}, 25.0)):
        objective, batch = prepared(DirectPreference(**fields), model, start)
        assert float(objective(model, batch, {"beta": 0.1})[0]) == pytest.approx(expected, rel=1e-12)


def test_normalised_ratios_are_a_beta_divided_by_the_length_where_lengths_are_equal() -> None:
    model, start = bigram(0), bigram(1)
    batch = text([([1], [2, 3, 4]), ([1], [5, 2, 2]), ([4], [1, 1, 1]), ([4], [6, 1, 2])], group=[0, 0, 1, 1], reward=[1.0, 0.0, 0.0, 1.0])
    one, other = DirectPreference(length_normalised=True), DirectPreference()
    losses = [prepared(objective, model, start, batch) for objective in (one, other)]
    a, b = (objective(model, ready, {"beta": beta})[0] for (objective, ready), beta in zip(losses, (5.0, 5.0 / 3), strict=True))
    assert float(a) == pytest.approx(float(b), rel=1e-12)
    assert (one.knobs, other.knobs) == ({"beta": 5.0}, {"beta": 0.1})


def test_a_group_without_a_pair_teaches_nothing() -> None:
    model, start = bigram(0), bigram(1)
    whole, batch = prepared(DirectPreference(), model, start)
    tie = {name: column[batch["group"] == 9] for name, column in batch.items()}
    loss, measures = whole(model, tie, {})
    assert (whole.weight(tie), float(loss), measures) == (0.0, 0.0, {})
    assert not torch.autograd.grad(loss, model.table)[0].any()


def test_only_the_compared_rows_are_kept_and_scored() -> None:
    model, start = bigram(0), bigram(1)
    _, batch = prepared(DirectPreference(), model, start)
    assert batch["group"].tolist() == [3, 3, 5, 5, 9]
    expected = torch.cat([log_prob(start, *GROUPS[row]) for row in (0, 1, 2, 3, 6)])
    assert torch.allclose(batch["reference"][batch["labels"] != -100], expected)
    assert not batch["reference"][batch["labels"] == -100].any()


def test_which_pairs_are_compared_is_a_choice() -> None:
    model, start = bigram(0), bigram(1)
    made = make("objectives/dpo", pairs="max_second")
    assert made == DirectPreference(pairs=PairChoice("max_second"))
    objective, batch = prepared(made, model, start)
    assert batch["reward"].tolist() == pytest.approx([1.0, 0.0, 0.9, 0.5, 0.5])
    assert objective.weight(batch) == 2.0


def test_without_a_reference_none_is_run() -> None:
    objective = DirectPreference(reference_free=True)
    assert (objective.passes, DirectPreference().passes) == (0.0, 1.0)
    assert "reference" not in objective.prepare(bigram(), groups(), {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "logistic"}, "loss must be one of sigmoid, robust, hinge, ipo, exo, found 'logistic'"),
        ({"label_smoothing": 0.6}, r"label_smoothing must be in \[0, 0.5\] for the loss sigmoid, found 0.6"),
        ({"loss": "robust", "label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\) for the loss robust, found 0.5"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing must be 0 for the loss ipo, found 0.1"),
        ({"loss": "exo"}, r"label_smoothing must be in \(0, 0.5\), such as 0.001 for the loss exo, found 0.0"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DirectPreference(**fields)


def test_without_bind_or_prepare_it_says_so() -> None:
    with pytest.raises(InputError, match=r"objectives/dpo compares with the model as it was; use what bind\(frozen\) returns"):
        DirectPreference().prepare(bigram(), groups(), {})
    with pytest.raises(InputError, match="objectives/dpo needs the column reference, which prepare"):
        DirectPreference()(bigram(), groups(), {})


@pytest.mark.parametrize(
    ("ours", "theirs", "smoothing"),
    [
        ({"loss": "sigmoid"}, "sigmoid", 0.0),
        ({"loss": "hinge"}, "hinge", 0.0),
        ({"loss": "robust", "label_smoothing": 0.2}, "robust", 0.2),
        ({"loss": "exo", "label_smoothing": 0.1}, "exo_pair", 0.1),
        # TRL divides by lengths in ipo, which is a choice here, and calls the sigmoid of normalised ratios a loss of its own
        ({"loss": "ipo", "length_normalised": True}, "ipo", 0.0),
        ({"loss": "sigmoid", "length_normalised": True}, "sigmoid_norm", 0.0),
    ],
)
def test_parity_with_trl(ours: dict[str, Any], theirs: str, smoothing: float, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    trainer, batch = peer(trl.DPOTrainer, trl.DPOConfig, PAIRS, tmp_path, loss_type=[theirs], beta=0.7, label_smoothing=smoothing)
    trainer.ref_model.eval()
    count = len(PAIRS)
    rows = [row for pair in range(count) for row in (pair, pair + count)]  # chosen ones first there, pair by pair here
    mine = as_ours(batch, group=list(range(count)) * 2, reward=[1.0] * count + [0.0] * count)
    mine = {name: column[rows] for name, column in mine.items()}
    objective: Any = DirectPreference(**ours).bind(lambda: START.module.eval())
    loss, _ = objective(TRAINED.module.eval(), objective.prepare(TRAINED.module, mine, {}), {"beta": 0.7})
    agree(loss, trainer.compute_loss(trainer.model, dict(batch)), TRAINED.module, trainer.model)


@pytest.mark.parametrize("loss", list(FORMULAS))
@pytest.mark.parametrize("free", [False, True])
def test_contract(loss: Any, free: bool) -> None:
    check_objective(DirectPreference(loss, FORMULAS[loss][0], reference_free=free), bigram(), groups(), frozen=bigram(1))


def test_contract_of_other_choices() -> None:
    for choice in (PairChoice("max_random"), PairChoice("max_second", 0.05)):
        check_objective(DirectPreference(length_normalised=True, pairs=choice), bigram(), groups(), frozen=bigram(1))
