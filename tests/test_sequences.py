"""What objectives over answers share: the parts that are worked out in another way where that is cheaper."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from outlay.sequences import TOGETHER, answer_logits, entropies, evaluating, frozen_log_probs, token_log_probs


class Unsteady(nn.Module):
    """Logits out of a table, twice as large while it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.table[input_ids] * (2 if self.training else 1))


def batch() -> dict[str, torch.Tensor]:
    """Return two answers, of three tokens and of one."""
    labels = torch.tensor([[-100, 2, 3, 4], [-100, -100, 1, -100]])
    ids = torch.tensor([[1, 2, 3, 4], [3, 4, 1, 0]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


@pytest.mark.parametrize("training", [True, False])
def test_frozen_log_probs_are_those_of_the_model_in_evaluation_mode(training: bool) -> None:
    model = Unsteady().train(training)
    found = frozen_log_probs(model, batch(), rows=1)
    assert model.training is training and not found.requires_grad
    rows = model.table.detach().log_softmax(-1)
    expected = torch.tensor([[0.0, rows[1, 2], rows[2, 3], rows[3, 4]], [0.0, 0.0, rows[4, 1], 0.0]])
    assert torch.allclose(found, expected)


def test_a_model_is_back_in_its_mode_after_an_error() -> None:
    model = Unsteady().train()
    with pytest.raises(KeyError), evaluating(model):
        assert not model.training
        raise KeyError
    assert model.training


def test_a_row_that_was_sampled_greedily_is_scored_at_temperature_1() -> None:
    found = answer_logits(Unsteady().eval(), {**batch(), "temperature": torch.tensor([0.0, 2.0])})
    plain = answer_logits(Unsteady().eval(), batch())
    assert torch.equal(found[:3], plain[:3]) and torch.equal(found[3], plain[3] / 2)


def test_half_precision_is_left_for_single() -> None:
    assert answer_logits(Unsteady().eval().bfloat16(), batch()).dtype == torch.float32
    assert answer_logits(Unsteady().eval().double(), batch()).dtype == torch.float64


def test_a_batch_without_answers_has_a_gradient_of_0() -> None:
    model, nothing = Unsteady(), batch()
    nothing["labels"][:] = -100
    token_log_probs(model, nothing).sum().backward()
    assert not model.table.grad.any()


def test_entropies_are_the_same_in_portions_without_gradients() -> None:
    logits = torch.randn(2 * TOGETHER + 7, 5, generator=torch.Generator().manual_seed(0)).double()
    logits[3, 1:] = -torch.inf
    with torch.no_grad():
        found = entropies(logits)
    assert torch.equal(found, entropies(logits))
    assert found[3] == 0
    assert torch.allclose(found[4:], torch.distributions.Categorical(logits=logits[4:]).entropy())
    assert torch.allclose(entropies(torch.zeros(2, 8)), torch.tensor(8.0).log())
