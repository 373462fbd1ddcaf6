from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from outlay.context import Context
from outlay.errors import InputError
from outlay.evaluations import HeldOutLoss
from outlay.models import Transformer
from outlay.objectives import Classification
from outlay.sources import Arrays, Table
from outlay.sources.base import IGNORED
from outlay.testing import check_exam

#: log p of every next token is that of the token itself: (1/8, 2/8, 5/8)
LOGITS = torch.tensor([1.0, 2.0, 5.0]).log()


class Unigram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(LOGITS.clone())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, 3))


def text(labels: list[list[int]]) -> Arrays:
    kept = torch.tensor(labels)
    columns = {"input_ids": kept.clamp(min=0), "attention_mask": torch.ones_like(kept), "labels": kept}
    return Arrays(train=columns, test=columns)


def sit(
    exam: HeldOutLoss, source: Any, model: nn.Module, context: Context | None = None
) -> tuple[dict[str, float], list[Mapping[str, Any]]]:
    charged: list[Mapping[str, Any]] = []
    with torch.no_grad():
        result = exam.open(context or Context(seed=0), source).run(model, lambda batch, new: charged.append(batch))
    return result, charged


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_mean_over_labelled_tokens_whatever_the_batches(batch_size: int) -> None:
    # predicted are 1 1 2 | 0 | (none): -log 2/8 twice, -log 5/8, -log 1/8
    rows = [[2, 1, 1, 2], [IGNORED, 0, IGNORED, IGNORED], [1, IGNORED, IGNORED, IGNORED]]
    result, charged = sit(HeldOutLoss(batch_size=batch_size), text(rows), Unigram())
    assert result["held_out/loss"] == pytest.approx((2 * math.log(4) + math.log(8 / 5) + math.log(8)) / 4, rel=1e-6)
    assert result["held_out/token_accuracy"] == pytest.approx(1 / 4)
    assert sum(len(batch["labels"]) for batch in charged) == 3
    assert len(charged) == -(-3 // batch_size)


def test_accuracy_of_a_classifier() -> None:
    inputs = torch.eye(3)[[0, 1, 2, 2, 1]]
    source = Arrays(train={"inputs": inputs}, test={"inputs": inputs, "labels": torch.tensor([0, 1, 2, 0, 0])})
    result, _ = sit(HeldOutLoss(objective=Classification(), batch_size=2, name="digits"), source, nn.Identity())
    right, wrong = math.log(math.e + 2) - 1, math.log(math.e + 2)
    assert result == {"digits/loss": pytest.approx((3 * right + 2 * wrong) / 5, rel=1e-6), "digits/accuracy": pytest.approx(3 / 5)}


def test_a_fixed_random_choice_of_examples() -> None:
    columns = {"inputs": torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), "labels": torch.arange(50) % 3}
    source = Arrays(train=columns, test=columns)

    def chosen(seed: int, name: str = "held_out") -> list[float]:
        exam = HeldOutLoss(objective=Classification(), examples=20, batch_size=8, name=name)
        _, charged = sit(exam, source, nn.Identity(), Context(seed=seed))
        return [value for batch in charged for value in batch["inputs"][:, 0].tolist()]

    assert len(set(chosen(0))) == 20
    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)
    assert chosen(0) != chosen(0, "other")


def test_its_own_source_comes_before_the_stage_s() -> None:
    other = text([[0, 0, 0, 0]])
    result, _ = sit(HeldOutLoss(source=text([[2, 2, 2, 2]])), other, Unigram())
    assert result["held_out/loss"] == pytest.approx(math.log(8 / 5), rel=1e-6)


def test_wrong_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="examples and batch_size must be > 0, found 0 and 64"):
        HeldOutLoss(examples=0)


def test_contract() -> None:
    loaded = Transformer(hidden=16, layers=1, heads=2, context=32).build(0)
    rows = [{"prompt": f"{number}+1=", "answer": str(number + 1)} for number in range(200)]
    table = Table(rows=rows, held_out_share=0.3)
    metrics = check_exam(HeldOutLoss(batch_size=7, examples=30), Context(seed=0, tokenizer=loaded.tokenizer), table, loaded.module)
    assert metrics["held_out/loss"] == pytest.approx(math.log(100), abs=0.5)


def test_an_objective_that_compares_with_a_frozen_model_is_refused_and_one_without_is_measured() -> None:
    from outlay.objectives import DirectPreference
    from outlay.sources import Preferences

    rows = [{"prompt": f"say {i}: ", "chosen": f"{i}{i}", "rejected": f"{i}!"} for i in range(40)]
    loaded = Transformer(hidden=16, layers=1, heads=2, context=32).build(0)
    context = Context(seed=1, tokenizer=loaded.tokenizer)
    source = Preferences(rows=rows, held_out_share=0.5)
    with pytest.raises(InputError, match="has no frozen model"):
        HeldOutLoss(DirectPreference()).open(context, source)
    free = HeldOutLoss(DirectPreference(reference_free=True), batch_size=2)
    with torch.no_grad():
        found = free.open(context, source).run(loaded.module.eval(), lambda batch, new: None)
    assert found["held_out/loss"] > 0
