"""End a loop of your own on a budget: a convolution on the digits, REX on the budget's clock through torch's scheduler protocol.

    python examples/torch_loop_budget.py [SECONDS]

Everything is inside the budget: the evaluation before, the training, and the evaluation after, for which the time of the first is kept back.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn import functional

from outlay import Budget, Meter
from outlay.integrations.torch import BudgetScheduler
from outlay.schedules import Rex, Warmup
from outlay.tasks import load

PEAK = 3e-3


def main() -> None:
    """Spend the budget and print what it bought."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    torch.manual_seed(0)
    digits = load("digits")
    train_x, test_x = (torch.as_tensor(part, dtype=torch.float32).reshape(-1, 1, 8, 8) for part in (digits.train_x, digits.test_x))
    train_y, test_y = (torch.as_tensor(part, dtype=torch.int64) for part in (digits.train_y, digits.test_y))
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16 * 64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.05)

    def held_out_loss() -> float:
        model.eval()
        with torch.no_grad(), meter.spend("eval"):
            loss = float(functional.cross_entropy(model(test_x), test_y))
        model.train()
        return loss

    meter = Meter(Budget.parse(f"{seconds}s"))
    before = held_out_loss()
    scheduler = BudgetScheduler(optimizer, Warmup(0.02, Rex()), meter, reserve=meter.accounts["eval"]["seconds"])
    last = 0.0
    while not scheduler.ended:
        with meter.spend("train"):
            rows = torch.randint(len(train_x), (64,))
            functional.cross_entropy(model(train_x[rows]), train_y[rows]).backward()
            last = optimizer.param_groups[0]["lr"]
            optimizer.step()
            optimizer.zero_grad()
            meter.charge("train", steps=1, examples=64)
            scheduler.step()
    after = held_out_loss()
    spent = meter.totals()
    print(f"{spent['seconds']:.2f} s of {seconds} s spent, ended by {scheduler.ended_by}, {spent['steps']:.0f} steps")
    print(f"learning rate / peak: {last / PEAK:.6f} in the last step, {scheduler.get_last_lr()[0] / PEAK:g} after")
    print(f"held-out loss {before:.4f} -> {after:.4f}")


if __name__ == "__main__":
    main()
