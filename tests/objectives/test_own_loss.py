"""A module that computes its own loss, as a tensor or as an object that holds it."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from outlay.objectives import OwnLoss
from outlay.testing import check_objective


class Regression(nn.Module):
    """Mean squared error of a line, answered as a scalar or as ``.loss``."""

    def __init__(self, wrapped: bool) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1).double()
        self.wrapped = wrapped

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor | SimpleNamespace:
        loss = ((self.line(inputs).squeeze(-1) - targets) ** 2).mean()
        return SimpleNamespace(loss=loss) if self.wrapped else loss


def batch() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    return {
        "inputs": torch.randn(6, 3, generator=draw, dtype=torch.float64),
        "targets": torch.randn(6, generator=draw, dtype=torch.float64),
    }


def test_both_answers_are_the_same_loss() -> None:
    plain, wrapped = Regression(False), Regression(True)
    wrapped.load_state_dict(plain.state_dict())
    first, _ = OwnLoss()(plain, batch(), {})
    second, _ = OwnLoss()(wrapped, batch(), {})
    by_hand = ((batch()["inputs"] @ plain.line.weight[0] + plain.line.bias - batch()["targets"]) ** 2).mean()
    assert first.item() == second.item()
    assert torch.allclose(first, by_hand)


def test_a_unit_is_an_example() -> None:
    assert OwnLoss().weight(batch()) == 6.0


def test_contract() -> None:
    check_objective(OwnLoss(), Regression(False), batch())
