"""The objective seam: what a batch teaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from outlay.sources.base import Batch


@runtime_checkable
class Objective(Protocol):
    """Turns a model and a batch into a loss.

    The loss is a mean over the batch's supervised units and ``weight`` counts them, so that the loop can cut a batch into pieces and get
    the same gradient: sum_i weight_i loss_i / sum_i weight_i. ``knobs`` names the values it reads, with their defaults.
    """

    @property
    def knobs(self) -> Mapping[str, float]:
        """The knobs that the loss reads, by name, with their defaults."""
        ...

    def weight(self, batch: Batch) -> float:
        """Return how many supervised units (tokens, examples) the batch holds."""
        ...

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss (a scalar with gradient) and further measured quantities, each a scalar mean over the same units."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """An objective that looks at a whole batch before it is cut into mini-batches and pieces: advantages of groups, log probabilities under
    a frozen model. ``passes`` says how many forward passes over the batch that takes, so that they can be charged."""

    passes: float

    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the batch with the columns that the loss reads, maybe with fewer rows; called without gradients, once for each batch drawn
        or generated, before the first update on it. Preparing a prepared batch again gives the same columns for the same weights."""
        ...


@runtime_checkable
class Thins(Protocol):
    """An objective to whose gradient some rows of an update may have nothing to add: the answers of a group that are all worth the same."""

    def thin(self, batch: Batch) -> Batch:
        """Return the prepared batch of one update without such rows, its loss and gradient the same; at least one row stays. Called before the
        batch is cut. Measures are then those of the rows that stay."""
        ...


@runtime_checkable
class Surveys(Protocol):
    """An objective whose loss depends on the whole batch of an update in a way that is no mean over rows: a penalty on the batch's KL."""

    def survey(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the batch with what its pieces must know of the whole; called without gradients before each update on a batch that is cut.
        On an uncut batch the loss works that out itself."""
        ...


@runtime_checkable
class Binds(Protocol):
    """An objective that compares with a frozen model or brings one along."""

    def bind(self, frozen: Callable[[], nn.Module]) -> Objective:
        """Return the objective as it is used in one stage. ``frozen()`` gives the model as it was when the stage began, in evaluation mode,
        without gradients; the same object each time. It is copied when first asked for, so who does not need it does not pay for it."""
        ...


@runtime_checkable
class Attaches(Protocol):
    """An objective that trains a part of its own beside the model, such as a critic."""

    def attach(self, model: nn.Module, seed: int) -> nn.Module:
        """Return the part, its weights drawn from ``seed``. It becomes the model's submodule ``attached_<stage>`` as long as the run lasts, is
        trained, saved and restored with it, and left out when the model is exported. The loss finds it through ``attached(model)``."""
        ...


def at_least_single(values: torch.Tensor) -> torch.Tensor:
    """Return half-precision values in single precision, and those of single or double precision as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
