"""End Lightning's Trainer on a budget: a perceptron on the digits, REX on the budget's clock.

    python examples/lightning_budget.py [SECONDS]

Everything is inside the budget: the validation before, the training, the validation after and the checkpoints.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from outlay.integrations.lightning import BudgetCallback
from outlay.reporting import read_run
from outlay.schedules import Rex, Warmup
from outlay.tasks import load

PEAK = 3e-3


class Digits(LightningModule):
    """64 pixels, 128 hidden units, 10 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return functional.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("held_out_loss", functional.cross_entropy(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=PEAK, weight_decay=0.05)


def rows(pixels: Any, labels: Any, shuffle: bool) -> DataLoader[Any]:
    """Return batches of 64 rows."""
    data = TensorDataset(torch.as_tensor(pixels, dtype=torch.float32), torch.as_tensor(labels, dtype=torch.int64))
    return DataLoader(data, batch_size=64, shuffle=shuffle)


def main() -> None:
    """Spend the budget and print what it bought."""
    warnings.filterwarnings("ignore", module="lightning")
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    torch.manual_seed(0)
    digits = load("digits")
    callback = BudgetCallback(f"{seconds}s", {"lr": Warmup(0.02, Rex())})
    trainer = Trainer(
        default_root_dir="runs/lightning", max_epochs=-1, callbacks=[callback], accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, check_val_every_n_epoch=20,
    )  # fmt: skip
    trainer.fit(Digits(), rows(digits.train_x, digits.train_y, True), rows(digits.test_x, digits.test_y, False))
    result, run = callback.result, read_run(callback.run.folder)  # type: ignore[union-attr]
    assert result is not None
    print(f"{result.spent['seconds']:.2f} s of {seconds} s spent, ended by {result.ended_by}, {result.steps} steps")
    print(
        f"learning rate / peak: {run.steps.knobs['lr'][-1] / PEAK:.6f} in the last step, {trainer.optimizers[0].param_groups[0]['lr'] / PEAK:g} after"
    )  # type: ignore[operator]
    print(f"held-out loss {result.metrics_start['held_out_loss']:.4f} -> {result.metrics['held_out_loss']:.4f}")
    print(f"outlay report {result.folder}")


if __name__ == "__main__":
    main()
