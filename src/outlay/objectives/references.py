"""References: what objectives share that compare the model with a frozen one, and that average over tokens."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from outlay.errors import InputError
from outlay.sequences import Frozen, answer_mask, frozen_log_probs, shifted
from outlay.sources.base import Batch

_Bound = TypeVar("_Bound")


def bound(objective: _Bound, frozen: Frozen) -> _Bound:
    """Return a copy of the objective whose field ``_frozen`` is ``frozen``."""
    copied = copy.copy(objective)
    object.__setattr__(copied, "_frozen", frozen)
    return copied


def frozen_model(frozen: Frozen | None, who: str) -> nn.Module:
    """Return the frozen model.

    Raises:
        InputError: when the objective, which ``who`` names, has not been bound to one.
    """
    if frozen is None:
        raise InputError(f"{who} compares with the model as it was; use what bind(frozen) returns, as a stage of a recipe does")
    return frozen()


def with_reference(frozen: Frozen | None, batch: Batch, who: str) -> Batch:
    """Return the batch with the column ``reference`` (n, T): log probabilities of the labelled tokens under the frozen model.

    Raises:
        InputError: when the objective has not been bound.
    """
    return {**batch, "reference": frozen_log_probs(frozen_model(frozen, who), batch)}


def log_ratios(log_probs: torch.Tensor, batch: Batch, who: str) -> torch.Tensor:
    """Return log pi - log pi_ref of the labelled tokens, (n, T - 1), 0 elsewhere.

    Raises:
        InputError: when the batch has no column ``reference``.
    """
    if "reference" not in batch:
        raise InputError(f"{who} needs the column reference, which prepare(model, batch, knobs) of the bound objective adds")
    return log_probs - shifted(batch, "reference").to(log_probs.dtype)


def token_count(batch: Batch) -> float:
    """Return the number of labelled tokens that have a position before them."""
    return float(answer_mask(batch).sum())


def token_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``values`` (n, T - 1) where ``mask`` is True; 0, still attached to the graph, where it never is."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
