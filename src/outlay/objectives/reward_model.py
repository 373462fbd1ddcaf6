"""Reward modelling: scores of whole answers that put the better above the worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.objectives.base import at_least_single
from outlay.objectives.pairs import together
from outlay.schedules.base import require
from outlay.sources.base import Batch


def run(model: nn.Module, batch: Batch, **options: Any) -> Any:
    """Return the model's output on the batch, padding written as the model's own padding token, by which it finds the last one of a text."""
    plain: Any = getattr(model, "module", model)
    padding = plain.config.pad_token_id
    mask = batch["attention_mask"]
    return model(input_ids=batch["input_ids"].masked_fill(mask == 0, padding), attention_mask=mask, **options)


def scores_of(output: Any) -> torch.Tensor:
    """Return the scores (n,) out of a reward model's output, in single precision.

    Raises:
        InputError: when the model gives something else than one number a text.
    """
    if output.logits.dim() != 2 or output.logits.shape[1] != 1:
        raise InputError(
            f"a reward model gives one score a text, and this model logits of shape {tuple(output.logits.shape)}; use models/reward_model"
        )
    return at_least_single(output.logits)[:, 0]


def comparisons(batch: Batch) -> torch.Tensor:
    """Return the rows (better, worse) of all pairs of judged answers to the same question of which one is worth more, (pairs, 2)."""
    return torch.nonzero(together(batch) & (batch["reward"][:, None] > batch["reward"][None]))


def group_means(values: torch.Tensor, pairs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean over groups of the means over their pairs of ``values`` (pairs,)."""
    _, index, counts = torch.unique(batch["group"][pairs[:, 0]], return_inverse=True, return_counts=True)
    return (values / counts[index]).sum() / len(counts)


def compared_groups(pairs: torch.Tensor, batch: Batch) -> float:
    """Return how many groups the pairs are of."""
    return float(len(torch.unique(batch["group"][pairs[:, 0]])))


def ranking(
    scores: torch.Tensor, pairs: torch.Tensor, batch: Batch, margin: float, centring: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of ``RewardRanking`` and its measures, from scores (n,) and the pairs to compare, of which there must be some."""
    better, worse = scores[pairs].unbind(1)
    apart = batch["reward"][pairs[:, 0]] - batch["reward"][pairs[:, 1]]
    losses = -logsigmoid(better - worse - margin * apart.to(scores.dtype)) + centring * (better + worse) ** 2
    difference = (better - worse).detach()
    measures = {"pair_accuracy": (difference > 0).to(scores.dtype), "margin": difference}
    return group_means(losses, pairs, batch), {name: group_means(value, pairs, batch) for name, value in measures.items()}


@dataclass(frozen=True)
class RewardRanking:
    """Mean over groups of the mean over their pairs of -log sigma(s_w - s_l - margin (reward_w - reward_l)) + centring (s_w + s_l)^2.

    s is the score of a whole text, prompt and answer; a pair is any two judged answers to the same question of which one is worth more. Of pairs
    of answers it is the Bradley-Terry model; of n answers of which k are right it is the listwise loss -1/(k (n - k)) sum log sigma(s_right - s_wrong)
    (arXiv 2409.12122). A group whose answers are all worth the same is skipped. Trains ``models/reward_model``.

    Args:
        margin: by how much a unit of reward must show in the scores, >= 0 (arXiv 2307.09288).
        centring: draws scores to a mean of 0, which ranking leaves open, >= 0; 0.01 is usual (arXiv 2312.09244).
    """

    title: ClassVar[str] = "Reward model by ranking (Bradley-Terry, listwise)"
    paper: ClassVar[Paper | None] = Paper("2203.02155", "Training language models to follow instructions with human feedback", 2022)
    knobs: ClassVar[dict[str, float]] = {}
    whole_groups: ClassVar[bool] = True

    margin: float = 0.0
    centring: float = 0.0

    def __post_init__(self) -> None:
        for name in ("margin", "centring"):
            require(0 <= getattr(self, name) < float("inf"), f"{name} must be finite and >= 0, found {getattr(self, name)}")

    def weight(self, batch: Batch) -> float:
        """Return the number of groups with a pair."""
        return compared_groups(comparisons(batch), batch)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss over the groups of ``input_ids`` (n, T) with ``group`` (n,) and ``reward`` (n,).

        Raises:
            InputError: when the model gives no single score.
        """
        scores, pairs = scores_of(run(model, batch)), comparisons(batch)
        if not len(pairs):
            return scores.sum() * 0.0, {}
        return ranking(scores, pairs, batch, self.margin, self.centring)
