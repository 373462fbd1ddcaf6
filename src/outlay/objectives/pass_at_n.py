"""Pass at N: supervised learning that is told how many attempts an answer will have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from outlay.catalog import Paper
from outlay.objectives.base import at_least_single
from outlay.objectives.sequences import answer_mask, token_log_probs
from outlay.sources.base import Batch

_PAPER = Paper(
    "2502.07154", "Rethinking Fine-Tuning when Scaling Test-Time Compute: Limiting Confidence Improves Mathematical Reasoning", 2025
)
#: log probability below which 1 - p is 1 to all but p^2; above the other, p counts as certain
_RARE, _CERTAIN = -14.0, -1e-6


def coverage_loss(log_prob: torch.Tensor, attempts: float) -> torch.Tensor:
    """Return -log(1 - (1 - p)^N) elementwise, finite for any log p <= 0; N = 1 gives -log p.

    With u = -N log(1 - p) it is -log(1 - e^-u) = -log u - log((1 - e^-u) / u), and each part keeps its digits: log u is log N + log p + p / 2
    where p is small, and the second part is u / 2 - u^2 / 24 where u is.

    Args:
        log_prob: log p, any shape.
        attempts: N >= 1, need not be whole.
    """
    if attempts == 1:
        return -log_prob
    log_prob = log_prob.clamp(max=_CERTAIN)
    rare = log_prob < _RARE
    # torch.where hands on a gradient of nan from the side not taken, so that side is given a harmless value
    common = log_prob.masked_fill(rare, -1.0)
    log_u = math.log(attempts) + torch.where(rare, log_prob + 0.5 * log_prob.exp(), torch.log(-torch.log(-torch.expm1(common))))
    u = log_u.exp()
    small = u < 1e-4
    large = u.masked_fill(small, 1.0)
    return -log_u + torch.where(small, 0.5 * u - u**2 / 24, -torch.log(-torch.expm1(-large) / large))


def brake(log_prob: torch.Tensor, attempts: float) -> torch.Tensor:
    """Return F = N p (1 - p)^(N - 1) / (1 - (1 - p)^N) in (0, 1], the factor by which the loss's gradient falls short of cross entropy's."""
    if attempts == 1:
        return torch.ones_like(log_prob)
    certain = log_prob.clamp(max=_CERTAIN)
    return torch.exp(math.log(attempts) + certain + (attempts - 1) * torch.log(-torch.expm1(certain)) + coverage_loss(certain, attempts))


@dataclass(frozen=True)
class PassAtN:
    """Direct coverage optimisation: mean of -log(1 - (1 - p)^N), the chance that N independent attempts all miss the answer being (1 - p)^N.

    p is the probability of the whole answer. The gradient is cross entropy's times a brake F(N, p) in (0, 1] that lets go of answers already
    likely enough for N attempts: F = 1 for N = 1 (cross entropy an answer) and for p -> 0, F -> 0 for p -> 1. Knob ``attempts`` = N >= 1: as many as
    inference will have; 1 is best for one attempt.

    Stepwise, for tree search, an answer is cut into steps, and the mean is over steps: -log(1 - (1 - p(step | x, steps before))^N), N being the
    width at each step. Log probabilities are clamped at -1e-6, where nothing is left to learn.

    Args:
        separators: ids of tokens that end a step; None takes the answer as a whole, and no id would make it one step as well.
    """

    title: ClassVar[str] = "Direct coverage optimisation (pass@N)"
    paper: ClassVar[Paper | None] = _PAPER
    knobs: ClassVar[dict[str, float]] = {"attempts": 16.0}

    separators: tuple[int, ...] | None = None

    def weight(self, batch: Batch) -> float:
        """Return the number of steps: answers, where they are taken whole."""
        return float(len(self._steps(batch)[1]))

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss of ``input_ids`` (n, T) against ``labels`` (n, T), the mean ``brake``, and the mean ``probability`` of a step."""
        attempts = _attempts(knobs)
        log_probs = token_log_probs(model, batch)
        index, present = self._steps(batch)
        if not len(present):
            return log_probs.sum() * 0.0, {}
        whole = log_probs.new_zeros(batch["labels"].numel()).index_add(0, index.flatten(), log_probs.flatten())[present]
        fixed = whole.detach()
        return coverage_loss(whole, attempts).mean(), {"brake": brake(fixed, attempts).mean(), "probability": fixed.exp().mean()}

    def _steps(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the number of the step that each position belongs to, (n, T - 1), and the numbers that hold a labelled token."""
        mask, labels = answer_mask(batch), batch["labels"][:, 1:]
        ends = mask & torch.isin(labels, torch.tensor(self.separators or (), dtype=labels.dtype, device=labels.device))
        within = ends.cumsum(1) - ends.long()  # a separator belongs to the step that it ends
        row = torch.arange(len(labels), device=labels.device)[:, None]
        index = row * (labels.shape[1] + 1) + within
        return index, torch.unique(index[mask])


@dataclass(frozen=True)
class PassAtNClassification:
    """Direct coverage optimisation of a classifier: mean of -log(1 - (1 - p(y | x))^N) over the examples; knob ``attempts`` = N >= 1."""

    title: ClassVar[str] = "Direct coverage optimisation of a classifier"
    paper: ClassVar[Paper | None] = _PAPER
    knobs: ClassVar[dict[str, float]] = {"attempts": 16.0}

    def weight(self, batch: Batch) -> float:
        """Return the number of examples."""
        return float(len(batch["labels"]))

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss of ``inputs`` (examples, ...) against ``labels`` (examples,), the accuracy, and ``coverage``, the mean
        1 - (1 - p)^N."""
        attempts = _attempts(knobs)
        logits = at_least_single(model(batch["inputs"]))
        losses = coverage_loss(-functional.cross_entropy(logits, batch["labels"], reduction="none"), attempts)
        right = (logits.detach().argmax(-1) == batch["labels"]).float().mean()
        return losses.mean(), {"accuracy": right, "coverage": losses.detach().neg().exp().mean()}


def _attempts(knobs: Mapping[str, float]) -> float:
    attempts = knobs.get("attempts", 16.0)
    if attempts < 1:
        raise ValueError(f"the knob attempts must be >= 1, found {attempts}")
    return attempts
