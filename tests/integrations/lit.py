"""A perceptron on the digits in Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from outlay.tasks import load


class Digits(LightningModule):
    """64 pixels, 16 hidden units, 10 digits; two groups, the head ten times slower."""

    def __init__(self, seed: int = 0, weight_decay: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.head, self.dropout = nn.Linear(64, 16), nn.Linear(16, 10), nn.Dropout(0.0)
        self.weight_decay = weight_decay
        self.rates: list[list[float]] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.body(inputs.flatten(1)).relu()))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.rates.append([group["lr"] for group in self.optimizers().param_groups])  # type: ignore[union-attr]
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [{"params": self.body.parameters(), "lr": 1e-2}, {"params": self.head.parameters(), "lr": 1e-3}]
        return torch.optim.AdamW(groups, weight_decay=self.weight_decay)


def loaders(batch_size: int = 32, rows: int = 320) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return batches of training rows in their own order, and two batches of 32 held-out rows."""
    digits = load("digits")
    train = _rows(digits.train_x[:rows], digits.train_y[:rows])
    test = _rows(digits.test_x[:64], digits.test_y[:64])
    return DataLoader(train, batch_size=batch_size), DataLoader(test, batch_size=32)


def _rows(pixels: Any, labels: Any) -> TensorDataset:
    return TensorDataset(torch.as_tensor(pixels, dtype=torch.float32), torch.as_tensor(labels, dtype=torch.int64))


def make_trainer(folder: Path, *callbacks: Any, **arguments: Any) -> Trainer:
    """Return a Trainer that logs nothing and ends on nothing of its own."""
    defaults: dict[str, Any] = {
        "max_epochs": -1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False,
    }  # fmt: skip
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **{**defaults, **arguments})
