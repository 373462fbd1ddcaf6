"""HPT: each question is paid for with rollouts where the model can answer it, and with a demonstration where it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import nn

from outlay.advantages import Group
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.objectives.policy_gradient import PolicyGradient, taught
from outlay.schedules.base import require
from outlay.sequences import answer_logits, answer_mask, group_index, judged_rows, knob, log_probs_of, row_means, row_sums
from outlay.sources.base import Batch
from outlay.stabilisers import Unmasked

#: coefficients (rollouts, demonstration) by the number of right answers out of eight, of the authors' code; beyond: (1, 0)
SOFT = ((0.0, 1.0), (0.0, 1.0), (0.125, 0.5), (0.25, 0.25), (0.5, 0.125))


@dataclass(frozen=True)
class Hpt:
    """L = mean over questions of alpha L_rollouts + sft * beta L_demonstration; with P the share of right answers, (alpha, beta) = (1, 0) where
    P > gate and (0, 1) elsewhere.

    L_rollouts is the mean over answers of -sum_t r_t A / limit with A = reward - mean(group) and no clip (Dr. GRPO's), L_demonstration the mean of
    -log pi over the demonstrations' tokens. Within an update each is taken over all its questions together and weighted by their share:

        L = (questions with rollouts / questions) L_rollouts + sft (questions with a demonstration / questions) L_demonstration

    ``prepare`` decides, and drops the rows that lost: all rollouts of a question that goes to its demonstration, the demonstration of one that does
    not. A question of which no answer could be judged is dropped. The authors' scripts also add an entropy bonus of 0.001, which is not here.

    Knob ``sft``. Measures, means over rows: ``demonstrations`` (their share of the rows), ``rollout_loss`` and ``demonstration_loss`` (the
    loss's two parts), ``entropy``.

    Args:
        gate: share of right answers above which rollouts are trained on; < 0 never uses demonstrations, 1 always. The authors' scripts switch at
            0 of 8 (Qwen) and at 2 of 8 (Llama).
        sft: weight of the demonstrations, >= 0; the default of the knob.
        table: (alpha, beta) by the number of right answers 0, 1, ...; (1, 0) beyond its end. Empty for the gate; ``SOFT`` is the authors' soft variant.
        right: smallest reward of a right answer.
        length: the constant that an answer's sum is divided by, > 0; None for the row's token limit.
        denominator: what the likelihood is divided by.
    """

    title: ClassVar[str] = "Hybrid post-training (HPT)"
    paper: ClassVar[Paper | None] = Paper("2509.04419", "Towards a Unified View of Large Language Model Post-Training", 2025)
    needs_demonstrations: ClassVar[bool] = True

    gate: float = 0.0
    sft: float = 1.0
    table: tuple[tuple[float, float], ...] = ()
    right: float = 0.5
    length: int | None = None
    denominator: Denominator = field(default_factory=Behaviour)

    def __post_init__(self) -> None:
        require(self.gate <= 1, f"gate must be <= 1, found {self.gate}")
        require(self.sft >= 0, f"sft must be >= 0, found {self.sft}")
        require(all(a >= 0 and b >= 0 for a, b in self.table), f"coefficients must be >= 0, found {self.table}")
        _ = self._rollouts

    @cached_property
    def _rollouts(self) -> PolicyGradient:
        return PolicyGradient(Group("group", "none"), self.denominator, stabiliser=Unmasked(), aggregate="constant", length=self.length)

    @property
    def knobs(self) -> Mapping[str, float]:
        """``sft`` and its default."""
        return {"sft": self.sft}

    @property
    def passes(self) -> float:
        """Forward passes over a batch that preparing takes."""
        return self._rollouts.passes

    def weight(self, batch: Batch) -> float:
        """Return the number of rows."""
        return float(len(batch["labels"]))

    @torch.no_grad()
    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the rows that are trained on, with ``advantage`` (n, T) and ``coefficient`` (n,): alpha of a rollout, beta of a demonstration."""
        judged = judged_rows(batch)
        shown = batch["demonstration"].bool() if "demonstration" in batch else torch.zeros_like(judged)
        ready = self._rollouts.prepare(model, {**batch, "judged": judged & ~shown, "demonstration": shown}, knobs)
        ready["judged"] = judged
        if "temperature" in ready:
            # a demonstration was not sampled: it is taught at temperature 1
            ready["temperature"] = torch.where(shown, torch.ones_like(ready["temperature"]), ready["temperature"])
        if "coefficient" not in batch:
            ready["coefficient"] = self._coefficients(batch, judged & ~shown, shown)
        kept = ready["coefficient"] > 0
        return {name: column[kept] for name, column in ready.items()} if bool(kept.any()) else ready

    def _coefficients(self, batch: Batch, answers: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        index, groups = group_index(batch)
        asked = torch.zeros(groups, device=index.device).index_add(0, index, answers.float())
        right = torch.zeros(groups, device=index.device).index_add(0, index, (answers & (batch["reward"] >= self.right)).float())
        if self.table:
            rows = torch.tensor([*self.table, (1.0, 0.0)], device=index.device)
            both = rows[right.long().clamp(max=len(self.table))]
        else:
            good = right / asked.clamp(min=1) > self.gate
            both = torch.stack([good, ~good], 1).float()
        both = both * (asked > 0)[:, None]
        return torch.where(shown, both[index, 1], both[index, 0])

    @torch.no_grad()
    def survey(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the batch with ``row_weight`` (n,): what a row's sum is multiplied by in the update's mean over rows."""
        return {**batch, "row_weight": self._weights(batch)}

    def _weights(self, batch: Batch) -> torch.Tensor:
        shown, mask = batch["demonstration"].bool(), taught(batch)
        index, groups = group_index(batch)
        rollouts = mask.any(1) & ~shown
        paid = [index[rows].unique().numel() / groups for rows in (rollouts, shown)]
        of_rollouts = paid[0] / max(1, int(rollouts.sum()))
        of_tokens = paid[1] / max(1, int(mask[shown].sum()))
        weights = torch.where(shown, of_tokens, of_rollouts) * len(shown)
        return weights.to(torch.promote_types(batch["reward"].dtype, torch.float32))

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss and the measures of a prepared batch."""
        logits, mask, shown = answer_logits(model, batch), taught(batch), batch["demonstration"].bool()
        tokens, measures = self._rollouts.of_tokens(logits, batch, knobs)
        length = batch["limit"] if self.length is None else self.length
        answered = row_sums(tokens, mask) / length
        taught_by = -row_sums(log_probs_of(logits, batch), mask)
        weights = (batch["row_weight"] if "row_weight" in batch else self._weights(batch)) * batch["coefficient"]
        of_rollouts = (weights * answered * ~shown).mean()
        of_demonstrations = knob(knobs, "sft", self.sft) * (weights * taught_by * shown).mean()
        seen = {
            "demonstrations": shown.to(answered.dtype).mean(),
            "rollout_loss": of_rollouts.detach(),
            "demonstration_loss": of_demonstrations.detach(),
            "entropy": row_means(measures["entropy"], answer_mask(batch)).mean(),
        }
        return of_rollouts + of_demonstrations, seen
