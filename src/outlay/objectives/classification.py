"""Classification: cross entropy over classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from outlay.catalog import Paper
from outlay.objectives.base import at_least_single
from outlay.sources.base import Batch


@dataclass(frozen=True)
class Classification:
    """Mean cross entropy over the examples: -(1/n) sum log p(y_i | x_i). Knob ``label_smoothing`` in [0, 1)."""

    title: ClassVar[str] = "Classification cross entropy"
    paper: ClassVar[Paper | None] = None
    knobs: ClassVar[dict[str, float]] = {"label_smoothing": 0.0}

    def weight(self, batch: Batch) -> float:
        """Return the number of examples."""
        return float(len(batch["labels"]))

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss of ``inputs`` (examples, ...) against ``labels`` (examples,), and the accuracy."""
        logits = model(batch["inputs"])
        loss = functional.cross_entropy(at_least_single(logits), batch["labels"], label_smoothing=knobs.get("label_smoothing", 0.0))
        return loss, {"accuracy": (logits.detach().argmax(-1) == batch["labels"]).float().mean()}
