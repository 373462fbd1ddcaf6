"""Domain losses: each domain's mean alone, charged like any exam."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from outlay.context import Context
from outlay.errors import InputError
from outlay.evaluations import DomainLosses, HeldOutLoss
from outlay.models import Mlp
from outlay.objectives import Classification
from outlay.sources import Arrays, Mixture
from outlay.testing import check_exam


class Fixed(nn.Module):
    """Gives class 1 the odds that the only input says."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(inputs), self.scale * inputs.log()], 1)


def domain(odds: float, labels: list[int]) -> Arrays:
    columns = {"inputs": torch.full((len(labels), 1), odds), "labels": torch.tensor(labels)}
    return Arrays(columns, columns)


MIXTURE = Mixture({"even": domain(1.0, [0, 1, 1]), "odd": domain(3.0, [1, 1, 1, 0])})


def test_every_domain_by_hand() -> None:
    charged: list[int] = []
    with torch.no_grad():
        sitting = DomainLosses(Classification(), batch_size=2).open(Context(seed=0), MIXTURE)
        found = sitting.run(Fixed(), lambda batch, _: charged.append(len(batch["labels"])))
    assert found == pytest.approx({
        "held_out_loss/even": math.log(2), "held_out_loss/even/accuracy": 1 / 3,
        "held_out_loss/odd": (3 * math.log(4 / 3) + math.log(4)) / 4, "held_out_loss/odd/accuracy": 3 / 4,
    })  # fmt: skip
    assert charged == [2, 1, 2, 2] and sitting.bound()["examples"] == 7


def test_a_name_a_source_and_a_limit_of_its_own() -> None:
    exam = DomainLosses(Classification(), MIXTURE, examples=2, name="exam")
    sitting = exam.open(Context(seed=0), domain(1.0, [0]))
    with torch.no_grad():
        assert set(sitting.run(Fixed(), lambda batch, _: None)) == {
            f"exam/{name}" for name in ("even", "even/accuracy", "odd", "odd/accuracy")
        }
    assert sitting.bound()["examples"] == 4


def test_contract() -> None:
    wide = {"inputs": torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), "labels": torch.arange(9) % 3}
    source = Mixture({"one": Arrays(wide, wide), "two": Arrays(wide, {name: column[:5] for name, column in wide.items()})})
    model = Mlp(inputs=4, classes=3, hidden=(8,)).build(0).module
    found = check_exam(DomainLosses(Classification(), examples=6), Context(seed=0), source, model)
    whole = check_exam(HeldOutLoss(Classification(), name="two"), Context(seed=0), source.domains["two"], model)
    assert found["held_out_loss/two"] == pytest.approx(whole["two/loss"])


def test_refused() -> None:
    with pytest.raises(InputError, match="measures the domains of sources/mixture, found Arrays"):
        DomainLosses(Classification()).open(Context(seed=0), domain(1.0, [0]))
    with pytest.raises(ValueError, match="examples"):
        DomainLosses(examples=0)
    with pytest.raises(ValueError, match="part"):
        DomainLosses(part=(0.5, 0.5))
