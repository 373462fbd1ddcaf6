"""SimPO: preferences by length-normalised likelihood and a margin, without a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from outlay.catalog import Paper
from outlay.objectives.pairs import Pairwise, pair_measures
from outlay.objectives.sequences import answer_mask, row_means, token_log_probs
from outlay.sources.base import Batch


@dataclass(frozen=True)
class SimplePreference(Pairwise):
    """Mean over pairs of -log sigma(beta (log pi(y_w | x) / |y_w| - log pi(y_l | x) / |y_l|) - margin).

    The implicit reward is what generation ranks answers by, the mean log probability of a token, and the better answer must win by ``margin``.

    Knobs: ``beta`` > 0 (the paper's search is over 2 and 2.5) and ``margin`` >= 0, the paper's gamma (half of beta here; it searches 0.3 to 1.6).

    Args:
        pairs: which pair a group gives.
    """

    title: ClassVar[str] = "SimPO"
    paper: ClassVar[Paper | None] = Paper("2405.14734", "SimPO: Simple Preference Optimization with a Reference-Free Reward", 2024)
    knobs: ClassVar[dict[str, float]] = {"beta": 2.0, "margin": 1.0}

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss over the pairs of ``input_ids`` (n, T), ``labels`` (n, T), ``group`` (n,) and ``reward`` (n,)."""
        told = {**self.knobs, **knobs}
        pairs = self.pairs.of(batch)
        log_probs = token_log_probs(model, batch)
        if not len(pairs):
            return log_probs.sum() * 0.0, {}
        better, worse = row_means(log_probs, answer_mask(batch))[pairs].unbind(1)
        return -logsigmoid(told["beta"] * (better - worse) - told["margin"]).mean(), pair_measures(better, worse)
