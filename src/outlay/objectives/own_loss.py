"""Own loss: a module that computes its loss itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.sources.base import Batch


@dataclass(frozen=True)
class OwnLoss:
    """The module is called with the batch's columns and returns its mean loss over examples: a scalar, or an object with ``.loss``."""

    title: ClassVar[str] = "The module's own loss"
    paper: ClassVar[Paper | None] = None
    knobs: ClassVar[dict[str, float]] = {}

    def weight(self, batch: Batch) -> float:
        """Return the number of examples."""
        return float(len(next(iter(batch.values()))))

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return what the module says its loss is."""
        answer = model(**batch)
        loss: torch.Tensor = answer if isinstance(answer, torch.Tensor) else answer.loss
        return loss, {}
