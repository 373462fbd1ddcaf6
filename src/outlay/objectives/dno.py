"""Direct Nash optimisation: regression of the implicit reward on how often an answer wins against its fellows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from outlay.catalog import Paper
from outlay.objectives.base import Objective
from outlay.objectives.pairs import together
from outlay.objectives.references import bound, log_ratios, with_reference
from outlay.objectives.sequences import Frozen, answer_mask, row_sums, token_log_probs
from outlay.schedules.base import require
from outlay.sources.base import Batch


def expected_win_rates(preference: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
    """Return r(y) = sum_y' policy(y') P(y beats y'), (answers,).

    Args:
        preference: P, (answers, answers), with P + P^T = 1; it need not come from rewards: rock, paper and scissors will do.
        policy: probabilities (answers,).
    """
    return preference @ policy


@dataclass(frozen=True)
class DirectNash:
    """Mean over pairs of answers to the same question of the cross entropy between sigma(r_1 - r_2) and sigma(beta d):

        d = log pi(y_1 | x) / pi_ref(y_1 | x) - log pi(y_2 | x) / pi_ref(y_2 | x),       r_i = mean_j P(y_i beats y_j)

    r is the expected win rate against answers of the policy that sampled them, here the question's judged answers, itself among them (1/2). A
    preference between two answers is P(y_i beats y_j) = sigma(scale (reward_i - reward_j)); with ``hard`` targets the answer worth more has won for
    certain, and the loss is that of DPO on all pairs. Pairs whose rewards differ by less than ``margin`` are left out, as the paper's practical
    version does (it keeps answers of a stronger model among them); the paper's own margin and scale are not known here.

    Knob ``beta`` > 0: 0.1. The reference is the model as it was when the stage began.

    Args:
        targets: ``soft`` or ``hard``.
        scale: > 0, how surely a difference in reward decides.
        margin: >= 0; with 0 answers worth the same are a pair as well when targets are soft, and teach that they are.
    """

    title: ClassVar[str] = "Direct Nash optimisation (DNO)"
    paper: ClassVar[Paper | None] = Paper(
        "2404.03715", "Direct Nash Optimization: Teaching Language Models to Self-Improve with General Preferences", 2024
    )
    knobs: ClassVar[dict[str, float]] = {"beta": 0.1}
    whole_groups: ClassVar[bool] = True
    passes: ClassVar[float] = 1.0

    targets: Literal["soft", "hard"] = "soft"
    scale: float = 1.0
    margin: float = 0.0
    _frozen: Frozen | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.targets in ("soft", "hard"), f"targets must be soft or hard, found {self.targets!r}")
        require(0 < self.scale < float("inf"), f"scale must be finite and > 0, found {self.scale}")
        require(0 <= self.margin < float("inf"), f"margin must be finite and >= 0, found {self.margin}")

    def bind(self, frozen: Frozen) -> Objective:
        """Return the objective with its reference."""
        return bound(self, frozen)

    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the batch with the column ``reference``.

        Raises:
            InputError: when the objective has not been bound to a frozen model.
        """
        return with_reference(self._frozen, batch, "objectives/dno")

    def weight(self, batch: Batch) -> float:
        """Return the number of pairs."""
        return float(len(self._pairs(batch)))

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss over the pairs of ``input_ids`` (n, T), ``labels`` (n, T), ``group`` (n,), ``reward`` (n,) and ``reference`` (n, T).

        Raises:
            InputError: when the batch was not prepared.
        """
        beta = knobs.get("beta", self.knobs["beta"])
        log_probs = token_log_probs(model, batch)
        pairs = self._pairs(batch)
        if not len(pairs):
            return log_probs.sum() * 0.0, {}
        ratios = row_sums(log_ratios(log_probs, batch, "objectives/dno"), answer_mask(batch))
        difference = ratios[pairs[:, 0]] - ratios[pairs[:, 1]]
        target = self._targets_of(batch, pairs).to(difference.dtype)
        losses = -target * logsigmoid(beta * difference) - (1 - target) * logsigmoid(-beta * difference)
        return losses.mean(), {"target": target.mean(), "margin": difference.detach().mean()}

    def _pairs(self, batch: Batch) -> torch.Tensor:
        """Return the rows (worth more, worth less) of all pairs, (pairs, 2)."""
        difference = batch["reward"][:, None] - batch["reward"][None]
        earlier = torch.ones_like(difference).triu(1).bool()
        wins = (difference > 0) | ((difference == 0) & earlier & (self.targets == "soft"))
        return torch.nonzero(together(batch) & wins & (difference >= self.margin))

    def _targets_of(self, batch: Batch, pairs: torch.Tensor) -> torch.Tensor:
        if self.targets == "hard":
            return torch.ones(len(pairs), device=pairs.device)
        fellows = together(batch)
        beats = torch.sigmoid(self.scale * (batch["reward"][:, None] - batch["reward"][None])) * fellows
        rates = beats.sum(1) / fellows.sum(1).clamp(min=1)
        return torch.sigmoid(rates[pairs[:, 0]] - rates[pairs[:, 1]])
