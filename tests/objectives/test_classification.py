from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from outlay.models import Mlp
from outlay.objectives import Classification, OwnLoss
from outlay.testing import check_objective


class Fixed(nn.Module):
    """The inputs are the logits, up to a factor of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.factor * inputs


# probabilities (1/2, 1/4, 1/4) and (1/6, 2/6, 3/6)
BATCH = {"inputs": torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 3.0]]).log(), "labels": torch.tensor([0, 1])}


def test_loss_and_accuracy_by_hand() -> None:
    loss, measures = Classification()(Fixed(), BATCH, {})
    assert float(loss.detach()) == pytest.approx((math.log(2) + math.log(3)) / 2, abs=1e-6)
    assert float(measures["accuracy"]) == 0.5
    assert Classification().weight(BATCH) == 2.0


def test_label_smoothing_by_hand() -> None:
    loss, _ = Classification()(Fixed(), BATCH, {"label_smoothing": 0.3})
    first = 0.7 * math.log(2) + 0.1 * (math.log(2) + 2 * math.log(4))
    second = 0.7 * math.log(3) + 0.1 * (math.log(6) + math.log(3) + math.log(2))
    assert float(loss.detach()) == pytest.approx((first + second) / 2, abs=1e-6)


def test_own_loss_is_taken_as_it_is() -> None:
    class Own(nn.Module):
        def __init__(self, wrapped: bool) -> None:
            super().__init__()
            self.weight, self.wrapped = nn.Parameter(torch.tensor(3.0)), wrapped

        def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> Any:
            loss = ((self.weight * inputs - labels) ** 2).mean()
            return SimpleNamespace(loss=loss) if self.wrapped else loss

    data = {"inputs": torch.tensor([1.0, 2.0]), "labels": torch.tensor([1.0, 2.0])}
    for wrapped in (False, True):
        loss, measures = OwnLoss()(Own(wrapped), data, {})
        assert (float(loss.detach()), measures) == (10.0, {})  # (2^2 + 4^2) / 2
        check_objective(OwnLoss(), Own(wrapped), data)
    assert OwnLoss().weight(data) == 2.0


def test_contract() -> None:
    draw = torch.Generator().manual_seed(0)
    data = {"inputs": torch.randn(5, 4, generator=draw), "labels": torch.tensor([0, 1, 2, 0, 1])}
    check_objective(Classification(), Mlp(inputs=4, classes=3, hidden=(6,)).build(0).module, data)
