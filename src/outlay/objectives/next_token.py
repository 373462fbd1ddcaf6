"""Next token: supervised learning of a causal language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from outlay.catalog import Paper
from outlay.objectives.base import at_least_single
from outlay.sources.base import IGNORED, Batch


@dataclass(frozen=True)
class NextToken:
    """Mean cross entropy of the next token over the labelled positions: -(1/n) sum log p(x_t | x_<t).

    Serves pretraining (all positions labelled) and supervised fine-tuning (only the answer's). Knob ``label_smoothing`` in [0, 1): the
    target becomes (1 - s) one-hot + s uniform.
    """

    title: ClassVar[str] = "Next-token cross entropy"
    paper: ClassVar[Paper | None] = None
    knobs: ClassVar[dict[str, float]] = {"label_smoothing": 0.0}

    def weight(self, batch: Batch) -> float:
        """Return the number of labelled tokens that have a position before them."""
        return float((batch["labels"][:, 1:] != IGNORED).sum())

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss of ``input_ids`` (examples, tokens) against ``labels`` of the same shape, and the share predicted."""
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        targets = batch["labels"][:, 1:]
        kept = targets != IGNORED
        chosen, wanted = at_least_single(logits[kept]), targets[kept]
        if wanted.numel() == 0:
            return logits.sum() * 0.0, {}
        loss = functional.cross_entropy(chosen, wanted, label_smoothing=knobs.get("label_smoothing", 0.0))
        return loss, {"token_accuracy": (chosen.detach().argmax(-1) == wanted).float().mean()}
