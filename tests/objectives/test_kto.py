"""KTO: the value of good and bad answers, the baseline out of mismatched answers, and parity with TRL's trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import GROUPS, Bigram, bigram, groups, log_prob, same_gradient, text
from trl_peers import START, TRAINED, agree, as_ours, peer

from outlay.errors import InputError
from outlay.objectives import KahnemanTversky
from outlay.objectives.kto import mismatched
from outlay.objectives.sequences import frozen_log_probs
from outlay.testing import check_objective

JUDGED = [0, 1, 2, 3, 4, 6, 7]
GOOD = [True, False, False, True, False, False, False]


def ratio(model: Bigram, start: Bigram, prompt: list[int], answer: list[int]) -> torch.Tensor:
    return (log_prob(model, prompt, answer) - log_prob(start, prompt, answer).detach()).sum()


def test_mismatched_answers_are_those_of_the_next_question() -> None:
    batch = text(GROUPS, group=[3, 3, 5, 5, 5, 5, 9, 9])
    made = mismatched(batch)
    found = [
        (row[(mask == 1) & (labels == -100)].tolist(), row[labels != -100].tolist())
        for row, mask, labels in zip(made["input_ids"], made["attention_mask"], made["labels"], strict=True)
    ]
    answers = [GROUPS[other][1] for other in (2, 2, 6, 6, 6, 6, 0, 0)]
    assert found == [(prompt, answer) for (prompt, _), answer in zip(GROUPS, answers, strict=True)]
    assert len(mismatched({name: column[:2] for name, column in batch.items()})["labels"]) == 0
    assert len(mismatched(text(GROUPS))["labels"]) == 8


@pytest.mark.parametrize("nearer", [False, True])
def test_by_its_formula(nearer: bool) -> None:
    model = bigram(0)
    # a start that is less likely to give the mismatched answers makes the baseline positive
    start = Bigram(model.table.detach() * 0.2) if nearer else bigram(1)
    objective: Any = KahnemanTversky(desirable=1.5, undesirable=0.7).bind(lambda: start)
    batch = objective.prepare(model, groups(), {})
    partners = [2, 2, 6, 6, 6, 0, 0]
    mean = torch.stack([ratio(model, start, GROUPS[row][0], GROUPS[other][1]) for row, other in zip(JUDGED, partners, strict=True)]).mean()
    z = max(0.0, float(mean))
    assert batch["baseline"].tolist() == pytest.approx([z] * 7)
    rho = torch.stack([ratio(model, start, *GROUPS[row]) for row in JUDGED])
    values = [
        1.5 * (1 - torch.sigmoid(0.3 * (r - z))) if good else 0.7 * (1 - torch.sigmoid(0.3 * (z - r)))
        for r, good in zip(rho, GOOD, strict=True)
    ]
    expected = torch.stack(values).mean()
    loss, measures = objective(model, batch, {"beta": 0.3})
    assert float(loss) == pytest.approx(float(expected), rel=1e-10)
    assert same_gradient(loss, expected, model)
    assert float(measures["baseline"]) == pytest.approx(z) and float(measures["log_ratio"]) == pytest.approx(float(rho.mean()))
    assert objective.weight(batch) == objective.weight(groups()) == 7.0


def test_at_the_start_it_is_half_the_weights() -> None:
    model = bigram()
    objective: Any = KahnemanTversky(desirable=1.5, undesirable=0.5).bind(lambda: Bigram(model.table.detach()))
    loss, measures = objective(model, objective.prepare(model, groups(), {}), {})
    assert float(loss) == pytest.approx(0.5 * (2 * 1.5 + 5 * 0.5) / 7, rel=1e-12)
    assert float(measures["baseline"]) == 0.0


def test_only_the_answers_worth_more_than_the_threshold_are_good() -> None:
    model, start = bigram(0), bigram(1)
    every: Any = KahnemanTversky(threshold=-1.0, undesirable=50.0).bind(lambda: start)
    batch = every.prepare(model, groups(), {})
    good = 1 - torch.sigmoid(0.1 * (torch.stack([ratio(model, start, *GROUPS[row]) for row in JUDGED]) - batch["baseline"]))
    assert float(every(model, batch, {})[0]) == pytest.approx(float(good.mean()), rel=1e-10)


def test_a_batch_that_nobody_judged_teaches_nothing() -> None:
    model = bigram()
    objective: Any = KahnemanTversky().bind(lambda: bigram(1))
    batch = objective.prepare(model, {**groups(), "judged": torch.zeros(8, dtype=torch.bool)}, {})
    loss, _ = objective(model, batch, {})
    assert (len(batch["labels"]), objective.weight(batch), float(loss)) == (1, 0.0, 0.0)
    assert not torch.autograd.grad(loss, model.table)[0].any()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="undesirable must be finite and > 0, found 0"):
        KahnemanTversky(undesirable=0.0)
    with pytest.raises(InputError, match="objectives/kto compares with the model as it was"):
        KahnemanTversky().prepare(bigram(), groups(), {})
    with pytest.raises(InputError, match="objectives/kto needs the column reference"):
        KahnemanTversky()(bigram(), groups(), {})


def test_parity_with_trl(tmp_path: Path) -> None:
    """TRL pairs prompts with other rows' answers once for the whole data set, and we within a batch, so its mismatched rows are used for both."""
    trl = pytest.importorskip("trl")
    rows = [
        {"prompt": prompt, "completion": answer, "label": label}
        for prompt, answer, label in (("ab", "cdef", True), ("x", "yz", False), ("hello", "u", True), ("q", "rst", True))
    ]
    trainer, batch = peer(trl.KTOTrainer, trl.KTOConfig, rows, tmp_path, beta=0.7, desirable_weight=1.2, undesirable_weight=0.6)
    trainer.ref_model.eval()
    mine = as_ours(batch, reward=batch["label"].double().tolist())
    others = {
        "input_ids": batch["KL_input_ids"], "attention_mask": batch["KL_attention_mask"],
        "labels": batch["KL_input_ids"].masked_fill(batch["KL_completion_mask"] == 0, -100),
    }  # fmt: skip
    model, start = TRAINED.module.eval(), START.module.eval()
    z = (frozen_log_probs(model, others) - frozen_log_probs(start, others)).sum(1).mean().clamp(min=0)
    objective: Any = KahnemanTversky(desirable=1.2, undesirable=0.6).bind(lambda: start)
    ready = {**objective.prepare(model, mine, {}), "baseline": z.expand(4)}
    loss, _ = objective(model, ready, {"beta": 0.7})
    agree(loss, trainer.compute_loss(trainer.model, dict(batch)), model, trainer.model)


def test_contract() -> None:
    check_objective(KahnemanTversky(desirable=1.3), bigram(), groups(), frozen=bigram(1))
    check_objective(KahnemanTversky(), bigram(0), groups(), frozen=Bigram(bigram(0).table.detach() * 0.2))
