"""SLiC: sequence likelihood calibration with a margin, held by fine-tuning on reference answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.objectives.pairs import Pairwise, pair_measures
from outlay.objectives.sequences import answer_mask, row_sums, token_log_probs
from outlay.sources.base import Batch


@dataclass(frozen=True)
class SequenceCalibration(Pairwise):
    """Mean over pairs of max(0, margin - log pi(y_w | x) + log pi(y_l | x)) - regularisation log pi(y* | x).

    y* is the question's reference answer, a row whose ``demonstration`` is True, or the better answer of the pair where the batch holds none (the
    paper's regularisation to the target of fine-tuning, and to the better answer, in one). It differs from the ``hinge`` of DPO in having no
    reference model: the second term is what holds the model.

    Knobs: ``margin`` >= 0, the paper's delta, in nats of a whole answer: 1; ``regularisation`` >= 0, its lambda: 0.5. Both are choices made here.

    Args:
        pairs: which pair a group gives.
    """

    title: ClassVar[str] = "Sequence likelihood calibration (SLiC-HF)"
    paper: ClassVar[Paper | None] = Paper("2305.10425", "SLiC-HF: Sequence Likelihood Calibration with Human Feedback", 2023)
    knobs: ClassVar[dict[str, float]] = {"margin": 1.0, "regularisation": 0.5}
    needs_demonstrations: ClassVar[bool] = True

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss over the pairs of ``input_ids`` (n, T), ``labels`` (n, T), ``group`` (n,) and ``reward`` (n,), and its part
        ``calibration``."""
        told = {**self.knobs, **knobs}
        pairs = self.pairs.of(batch)
        log_probs = token_log_probs(model, batch)
        if not len(pairs):
            return log_probs.sum() * 0.0, {}
        rows = row_sums(log_probs, answer_mask(batch))
        better, worse = rows[pairs].unbind(1)
        calibration = torch.relu(told["margin"] - better + worse)
        loss = (calibration - told["regularisation"] * rows[self._targets(batch, pairs[:, 0])]).mean()
        return loss, {"calibration": calibration.detach().mean(), **pair_measures(better, worse)}

    def _targets(self, batch: Batch, better: torch.Tensor) -> torch.Tensor:
        """Return the row of the reference answer to each pair's question, (pairs,)."""
        if "demonstration" not in batch:
            return better
        fits = (batch["group"][better][:, None] == batch["group"][None]) & batch["demonstration"].bool()[None]
        return torch.where(fits.any(1), fits.long().argmax(1), better)
