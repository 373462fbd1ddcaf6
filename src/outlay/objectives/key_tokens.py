"""Key tokens: fine-tuning on tool calls that does not let the few tokens which decide be outvoted by the many which follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.objectives.references import token_mean
from outlay.objectives.sequences import answer_mask, shifted, token_log_probs
from outlay.schedules.base import require
from outlay.sources.base import Batch


@dataclass(frozen=True)
class KeyTokens:
    """Next-token cross entropy with key tokens weighted: sum_t w_t (-log p_t) / sum_t w_t.

    w = min(others / keys, max_weight) for key tokens where they are fewer than the others, else 1; 1 for the others; both counted over the batch as it
    is drawn. Key tokens are where the column ``key`` (n, T) is True, on labelled tokens: where a tool's name begins, and where it parts from
    other tools' names; ``sources/tool_calls`` marks them.

    Args:
        max_weight: >= 1.
    """

    title: ClassVar[str] = "Prioritised key tokens (TL-Training)"
    paper: ClassVar[Paper | None] = Paper(
        "2412.15495", "TL-Training: A Task-Feature-Based Framework for Training Large Language Models in Tool Use", 2024
    )
    knobs: ClassVar[dict[str, float]] = {}
    passes: ClassVar[float] = 0.0

    max_weight: float = 9.0

    def __post_init__(self) -> None:
        require(1 <= self.max_weight < float("inf"), f"max_weight must be finite and >= 1, found {self.max_weight}")

    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the batch with the column ``weights`` (n, T).

        Raises:
            InputError: when there is no column ``key``.
        """
        return {**batch, "weights": self._weights(batch)}

    def weight(self, batch: Batch) -> float:
        """Return the sum of the labelled tokens' weights."""
        return float((self._of(batch) * answer_mask(batch)).sum())

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the weighted mean loss of ``input_ids`` (n, T) against ``labels`` (n, T).

        Raises:
            InputError: when there is no column ``key``.
        """
        mask, log_probs = answer_mask(batch), token_log_probs(model, batch)
        weights = self._of(batch).to(log_probs.dtype) * mask
        total = weights.sum()
        return token_mean(-log_probs * weights, mask) * (mask.sum() / total if bool(total) else 1.0), {}

    def _of(self, batch: Batch) -> torch.Tensor:
        return shifted(batch, "weights") if "weights" in batch else self._weights(batch)[:, 1:]

    def _weights(self, batch: Batch) -> torch.Tensor:
        if "key" not in batch:
            raise InputError("objectives/key_tokens needs the column key, True on the tokens that decide")
        key = torch.zeros_like(batch["labels"], dtype=torch.bool)
        key[:, 1:] = batch["key"][:, 1:].bool() & answer_mask(batch)
        keys = int(key.sum())
        others = int(answer_mask(batch).sum()) - keys
        heavy = min(others / keys, self.max_weight) if 0 < keys < others else 1.0
        return torch.ones(key.shape, dtype=torch.float64, device=key.device).masked_fill(key, heavy)
