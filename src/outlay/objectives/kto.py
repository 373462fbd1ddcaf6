"""KTO: learning from answers that are good or bad, each by itself, as people weigh gains and losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.objectives.base import Objective
from outlay.objectives.references import bound, frozen_model, log_ratios, with_reference
from outlay.objectives.sequences import Frozen, answer_mask, frozen_log_probs, judged_rows, row_sums, token_log_probs
from outlay.schedules.base import require
from outlay.sources.base import IGNORED, Batch


def mismatched(batch: Batch) -> Batch:
    """Return each row's prompt with the answer of the next row of another question, cyclically; rows of a batch with one question are left out."""
    partners = _partners(batch["group"].tolist() if "group" in batch else list(range(len(batch["labels"]))))
    rows = [(row, other) for row, other in enumerate(partners) if other is not None]
    texts = [torch.cat([_prompt(batch, row), _answer(batch, other)]) for row, other in rows]
    width = max((len(text) for text in texts), default=1)
    ids = batch["input_ids"].new_zeros(len(rows), width)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for i, ((row, _), text) in enumerate(zip(rows, texts, strict=True)):
        ids[i, : len(text)], mask[i, : len(text)] = text, 1
        labels[i, len(_prompt(batch, row)) : len(text)] = text[len(_prompt(batch, row)) :]
    made = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if "temperature" in batch:
        made["temperature"] = batch["temperature"][[row for row, _ in rows]]
    return made


def _partners(groups: list[int]) -> list[int | None]:
    count = len(groups)
    return [
        next((j % count for j in range(i + 1, i + count) if groups[j % count] != groups[i]), None) for i in range(count)
    ]  # fmt: skip


def _prompt(batch: Batch, row: int) -> torch.Tensor:
    return batch["input_ids"][row][batch["attention_mask"][row].bool() & (batch["labels"][row] == IGNORED)]


def _answer(batch: Batch, row: int) -> torch.Tensor:
    return batch["input_ids"][row][batch["labels"][row] != IGNORED]


@dataclass(frozen=True)
class KahnemanTversky:
    """Mean over the judged answers of a weight times 1 - value, the value of a good and of a bad answer being

        good  desirable   (1 - sigma(beta (rho - z)))
        bad   undesirable (1 - sigma(beta (z - rho))),        rho = log pi(y | x) / pi_ref(y | x)

    z = max(0, mean of log pi(y' | x) / pi_ref(y' | x)) over answers y' to other questions estimates KL(pi || pi_ref), the point that gains and losses
    are counted from; no gradient flows through it. It is worked out with the weights that the batch is prepared with, before the first update on
    it, from the answer to the next question of the batch, and by each process for its own part; 0 where all answers are to one question.

    Pairs are not needed. Knob ``beta`` > 0: 0.1. Measures: ``baseline`` is z, ``log_ratio`` the mean rho.

    Args:
        threshold: answers worth more are good, others bad; 0.5 for rewards of 0 and 1.
        desirable: weight of good answers, > 0.
        undesirable: weight of bad answers, > 0; the paper keeps desirable * good / (undesirable * bad) within 1 and 4/3 by their numbers.
    """

    title: ClassVar[str] = "KTO"
    paper: ClassVar[Paper | None] = Paper("2402.01306", "KTO: Model Alignment as Prospect Theoretic Optimization", 2024)
    knobs: ClassVar[dict[str, float]] = {"beta": 0.1}
    #: one of the reference, and one of either model on the mismatched answers
    passes: ClassVar[float] = 3.0

    threshold: float = 0.5
    desirable: float = 1.0
    undesirable: float = 1.0
    _frozen: Frozen | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("desirable", "undesirable"):
            require(0 < getattr(self, name) < float("inf"), f"{name} must be finite and > 0, found {getattr(self, name)}")

    def bind(self, frozen: Frozen) -> Objective:
        """Return the objective with its reference."""
        return bound(self, frozen)

    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the judged rows with the columns ``reference`` (n, T) and ``baseline`` (n,), the same in each row; one row where none was judged.

        Raises:
            InputError: when the objective has not been bound to a frozen model.
        """
        judged = judged_rows(batch)
        kept = {name: column[judged] if bool(judged.any()) else column[:1] for name, column in batch.items()}
        made = with_reference(self._frozen, kept, "objectives/kto")
        others = mismatched(kept)
        baseline = made["reference"].new_zeros(())
        if len(others["labels"]):
            start = frozen_log_probs(frozen_model(self._frozen, "objectives/kto"), others)
            baseline = (frozen_log_probs(model, others) - start).sum(1).mean().clamp(min=0)
        return {**made, "baseline": baseline.expand(len(made["labels"])).clone()}

    def weight(self, batch: Batch) -> float:
        """Return the number of judged answers."""
        return float(judged_rows(batch).sum())

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss over the rows of ``input_ids`` (n, T), ``labels`` (n, T), ``reward`` (n,), ``reference`` (n, T) and ``baseline`` (n,).

        Raises:
            InputError: when the batch was not prepared.
        """
        beta, judged = knobs.get("beta", self.knobs["beta"]), judged_rows(batch)
        log_probs = token_log_probs(model, batch)
        if not bool(judged.any()):
            return log_probs.sum() * 0.0, {}
        rho = row_sums(log_ratios(log_probs, batch, "objectives/kto"), answer_mask(batch))[judged]
        baseline, good = batch["baseline"].to(rho.dtype)[judged], (batch["reward"] > self.threshold)[judged]
        gain = torch.where(good, rho - baseline, baseline - rho)
        weights = torch.full_like(rho, self.undesirable).masked_fill(good, self.desirable)
        losses = weights * torch.sigmoid(-beta * gain)
        return losses.mean(), {"baseline": baseline.mean(), "log_ratio": rho.detach().mean()}
