"""ORPO: fine-tuning on the better answer, with its odds pushed above the worse one's in the same pass."""

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


def log_odds(log_prob: torch.Tensor) -> torch.Tensor:
    """Return log(p / (1 - p)) from log p <= 0, which is taken for at most -1e-6."""
    log_prob = log_prob.clamp(max=-1e-6)
    return log_prob - torch.log(-torch.expm1(log_prob))


@dataclass(frozen=True)
class OddsRatioPreference(Pairwise):
    """Mean over pairs of -log p_w - beta log sigma(log odds(p_w) - log odds(p_l)), odds(p) = p / (1 - p).

    p is the geometric mean of an answer's token probabilities: log p = log pi(y | x) / |y|. No reference and no fine-tuning before it are needed. The
    first term is fine-tuning on the better answer, an answer's mean over its tokens.

    Knob ``beta`` >= 0, the paper's lambda: 0.1.

    Args:
        pairs: which pair a group gives.
    """

    title: ClassVar[str] = "ORPO"
    paper: ClassVar[Paper | None] = Paper("2403.07691", "ORPO: Monolithic Preference Optimization without Reference Model", 2024)
    knobs: ClassVar[dict[str, float]] = {"beta": 0.1}

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss over the pairs of ``input_ids`` (n, T), ``labels`` (n, T), ``group`` (n,) and ``reward`` (n,), and its part
        ``odds_loss`` before beta."""
        beta = knobs.get("beta", self.knobs["beta"])
        pairs = self.pairs.of(batch)
        log_probs = token_log_probs(model, batch)
        if not len(pairs):
            return log_probs.sum() * 0.0, {}
        better, worse = row_means(log_probs, answer_mask(batch))[pairs].unbind(1)
        odds = -logsigmoid(log_odds(better) - log_odds(worse))
        return (beta * odds - better).mean(), {"odds_loss": odds.detach().mean(), **pair_measures(better, worse)}
