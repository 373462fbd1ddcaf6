from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from outlay.models import Transformer
from outlay.objectives import NextToken
from outlay.sources.base import IGNORED
from outlay.testing import check_objective

#: p = (1/6, 2/6, 3/6) after token 0 and (1/2, 1/4, 1/4) after every other
TABLE = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]).log()


class Bigram(nn.Module):
    """Logits of the next token out of a table, one row a token."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table.clone())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.table[input_ids])


def batch(ids: list[list[int]], labels: list[list[int]] | None = None) -> dict[str, torch.Tensor]:
    rows = torch.tensor(ids)
    return {"input_ids": rows, "attention_mask": torch.ones_like(rows), "labels": rows.clone() if labels is None else torch.tensor(labels)}


def test_loss_by_hand() -> None:
    # 0 -> 2 with 1/2, 2 -> 1 with 1/4, 1 -> 0 with 1/2
    loss, measures = NextToken()(Bigram(TABLE), batch([[0, 2, 1, 0]]), {})
    assert float(loss.detach()) == pytest.approx((math.log(2) + math.log(4) + math.log(2)) / 3, abs=1e-6)
    assert float(measures["token_accuracy"]) == pytest.approx(2 / 3)  # 2 is likeliest after 0, 0 after 1 and after 2
    assert NextToken().weight(batch([[0, 2, 1, 0]])) == 3.0


def test_only_labelled_positions_count_and_the_first_never_does() -> None:
    labels = [[0, IGNORED, 1, IGNORED], [2, 1, IGNORED, IGNORED]]
    data = batch([[0, 2, 1, 0], [0, 1, 1, 1]], labels)
    loss, measures = NextToken()(Bigram(TABLE), data, {})
    assert float(loss.detach()) == pytest.approx((math.log(4) + math.log(3)) / 2, abs=1e-6)
    assert float(measures["token_accuracy"]) == 0.0
    assert NextToken().weight(data) == 2.0


@pytest.mark.parametrize("smoothing", [0.1, 0.6])
def test_label_smoothing_by_hand(smoothing: float) -> None:
    # the target is (1 - s) one-hot + s / 3 on each of the three tokens
    loss, _ = NextToken()(Bigram(TABLE), batch([[0, 2]]), {"label_smoothing": smoothing})
    expected = (1 - smoothing) * math.log(2) + smoothing / 3 * (math.log(6) + math.log(3) + math.log(2))
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-6)


def test_a_batch_without_a_label_teaches_nothing() -> None:
    model = Bigram(TABLE)
    data = batch([[0, 2, 1]], [[0, IGNORED, IGNORED]])
    loss, measures = NextToken()(model, data, {})
    loss.backward()
    assert (float(loss.detach()), measures, NextToken().weight(data)) == (0.0, {}, 0.0)
    assert model.table.grad is not None and not model.table.grad.any()


def test_half_precision_is_summed_in_single() -> None:
    model = Bigram(TABLE).to(torch.bfloat16)
    loss, _ = NextToken()(model, batch([[0, 2, 1, 0]]), {})
    assert loss.dtype == torch.float32
    assert NextToken()(Bigram(TABLE).double(), batch([[0, 2]]), {})[0].dtype == torch.float64


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return Transformer(hidden=16, layers=2, heads=2, context=32).build(0).module


def padded() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 99, (4, 9), generator=generator)
    mask = torch.ones_like(ids)
    labels = ids.clone()
    for row, length in enumerate((9, 6, 8, 3)):
        ids[row, length:], mask[row, length:], labels[row, length:] = 0, 0, IGNORED
        labels[row, : row + 1] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def test_parity_with_the_loss_of_transformers(tiny: nn.Module) -> None:
    data = padded()
    ours, _ = NextToken()(tiny, data, {})
    theirs = tiny(**data).loss
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)
    one, other = (torch.autograd.grad(loss, list(tiny.parameters())) for loss in (ours, theirs))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one, other, strict=True))


def test_contract(tiny: nn.Module) -> None:
    check_objective(NextToken(), Bigram(torch.randn(99, 99, generator=torch.Generator().manual_seed(1))), padded())
    # this architecture normalises in single precision inside
    check_objective(NextToken(), tiny, padded(), tolerance=1e-5, step=1e-3)
