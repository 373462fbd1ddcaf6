"""The objective seam: what a batch teaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import nn

from outlay.sources.base import Batch


@runtime_checkable
class Objective(Protocol):
    """Turns a model and a batch into a loss.

    The loss is a mean over the batch's supervised units and ``weight`` counts them, so that the loop can cut a batch into pieces and get
    the same gradient: sum_i weight_i loss_i / sum_i weight_i. ``knobs`` names the values it reads, with their defaults.
    """

    knobs: ClassVar[dict[str, float]]

    def weight(self, batch: Batch) -> float:
        """Return how many supervised units (tokens, examples) the batch holds."""
        ...

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss (a scalar with gradient) and further measured quantities, each a scalar mean over the same units."""
        ...


def at_least_single(values: torch.Tensor) -> torch.Tensor:
    """Return half-precision values in single precision, and those of single or double precision as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
