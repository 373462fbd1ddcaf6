"""Train any torch module under a budget: an autoencoder on the digits that computes its own loss.

    python examples/own_module.py [BUDGET]

Nothing here is a name from the catalog alone: the module is yours, the data are arrays in memory, and the learning rate follows REX on the
budget's clock, whatever its unit.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn import functional

import outlay
from outlay.evaluations import HeldOutLoss
from outlay.objectives import OwnLoss
from outlay.schedules import Rex, Warmup
from outlay.sources import Arrays
from outlay.tasks import load


class Autoencoder(nn.Module):
    """Squeezes 64 pixels through 8 numbers; called with a batch's columns it returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
        self.decode = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        pixels = inputs.flatten(1)
        return functional.mse_loss(self.decode(self.encode(pixels)), pixels)


def main() -> None:
    """Spend the budget and print what it bought."""
    torch.manual_seed(0)
    digits = load("digits")
    stage = outlay.Stage(
        source=Arrays({"inputs": digits.train_x}, {"inputs": digits.test_x}),
        objective=OwnLoss(),
        batch_size=64,
        knobs={"lr": outlay.Knob(3e-3, Warmup(0.05, Rex()))},
    )
    recipe = outlay.Recipe(
        budget=outlay.Budget.parse(sys.argv[1] if len(sys.argv) > 1 else "500 steps"),
        model=Autoencoder(),
        stages=(stage,),
        name="autoencoder",
        evaluate=outlay.Evaluate(exams=(HeldOutLoss(objective=OwnLoss(), examples=360),)),
    )
    print("\n".join(outlay.plan(recipe).lines()))
    result = outlay.run(recipe)
    print(f"{result.folder}: held-out loss {result.metrics_start['held_out/loss']:.4f} -> {result.metrics['held_out/loss']:.4f}")


if __name__ == "__main__":
    main()
