"""DisCO: good answers are scored above bad ones, question by question, inside a trust region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn

from outlay.anchors.kl import divergence
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.objectives.policy_gradient import taught
from outlay.schedules.base import require
from outlay.sequences import (
    answer_logits,
    answer_mask,
    bounded,
    entropies,
    frozen_log_probs,
    group_index,
    log_probs_of,
    on_answers,
    row_means,
    row_sums,
)
from outlay.sources.base import Batch


@dataclass(frozen=True)
class _Seen:
    """A batch as the model scores it: scores (n,), the divergence's tokens (n, T - 1), and what they are summed over."""

    scores: torch.Tensor
    apart: torch.Tensor
    mask: torch.Tensor
    index: torch.Tensor
    asked: torch.Tensor
    entropy: torch.Tensor

    @property
    def questions(self) -> torch.Tensor:
        return self.asked.sum().clamp(min=1)

    @property
    def divergence(self) -> torch.Tensor:
        return (self.apart * self.mask).sum() / self.mask.sum().clamp(min=1)


@dataclass(frozen=True)
class DiscoB:
    """Loss = -J + sg([beta (KL - delta)]_+) KL, J = mean over questions of (mean of the good answers' s - mean of the bad ones' s).

    A score is log_l: s = mean_t log pi(y_t), or ratio: s = mean_t pi(y_t) / pi_old(y_t); nothing is clipped. GRPO's gradient is the same J with every
    question weighted by sqrt(p (1 - p)), p its share of good answers; without that weight, questions that are nearly always or nearly never answered count
    fully. Questions whose answers are all good or all bad add nothing to J but count in the mean. The penalty's gradient is that of
    beta / 2 [KL - delta]_+^2, a squared hinge on KL(pi_old || pi), estimated over all tokens of the update's batch.

    Args:
        score: what of an answer is compared.
        delta: radius of the trust region in nats a token, >= 0.
        beta: weight of leaving it, >= 0.
        divergence: ``k1``, the mean of log pi_old - log pi, or ``k3``, which is never negative.
        good: smallest reward of a good answer.
        denominator: pi_old.
    """

    title: ClassVar[str] = "Discriminative constrained optimisation without weights (DisCO-b)"
    paper: ClassVar[Paper | None] = Paper(
        "2505.12366", "DisCO: Reinforcing Large Reasoning Models with Discriminative Constrained Optimization", 2025
    )
    knobs: ClassVar[dict[str, float]] = {}
    whole_groups: ClassVar[bool] = True

    score: Literal["log_l", "ratio"] = "log_l"
    delta: float = 1e-4
    beta: float = 1e3
    divergence: Literal["k1", "k3"] = "k1"
    good: float = 0.5
    denominator: Denominator = field(default_factory=Behaviour)

    def __post_init__(self) -> None:
        require(self.score in ("log_l", "ratio"), f"score must be log_l or ratio, found {self.score!r}")
        require(self.delta >= 0, f"delta must be >= 0, found {self.delta}")
        require(self.beta >= 0, f"beta must be >= 0, found {self.beta}")
        require(self.divergence in ("k1", "k3"), f"divergence must be k1 or k3, found {self.divergence!r}")

    @property
    def passes(self) -> float:
        """Forward passes over a batch that preparing takes: one where the denominator wants the trainer's own log probabilities."""
        return float(self.denominator.needs_old)

    def weight(self, batch: Batch) -> float:
        """Return the number of questions with a judged answer."""
        index, _ = group_index(batch)
        return float(index[taught(batch).any(1)].unique().numel())

    @torch.no_grad()
    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the batch with ``old`` (n, T) where the denominator asks for it."""
        return {**batch, "old": frozen_log_probs(model, batch)} if self.denominator.needs_old else batch

    @torch.no_grad()
    def survey(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the batch with the update's columns ``constraint`` (n,), beta [KL - delta]_+, and ``token_share`` (n,), questions over tokens."""
        seen = self._seen(model, batch)
        rows = torch.ones_like(seen.scores)
        return {**batch, "constraint": rows * self._force(seen), "token_share": rows * seen.questions / seen.mask.sum().clamp(min=1)}

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss and, as means over questions: ``gap`` (good less bad answers' mean score, 0 where there are not both), ``mixed`` (share of
        questions that have both), ``kl``, ``constraint`` (beta [KL - delta]_+) and ``entropy``."""
        seen = self._seen(model, batch)
        good, bad = self._sides(seen, batch)
        mixed = (good.any(1) & bad.any(1)).nonzero().squeeze(1)
        good, bad = good[mixed], bad[mixed]
        lifted = (self._mean(seen.scores, good) - self._against(seen.scores, bad)).sum() / seen.questions
        if "constraint" in batch:
            force, share = batch["constraint"][0], batch["token_share"][0]
            penalty = force * (seen.apart * seen.mask).sum() * share / seen.questions
        else:
            force = self._force(seen)
            penalty = force * seen.divergence
        with torch.no_grad():
            gap = (self._mean(seen.scores, good) - self._mean(seen.scores, bad)).sum() / seen.questions
            measures = {
                "gap": gap,
                "mixed": len(mixed) / seen.questions,
                "kl": self._per_question(seen.apart, seen),
                "constraint": force.detach().clone(),
                "entropy": self._per_question(seen.entropy, seen),
            }
        return penalty - lifted, measures

    def _against(self, scores: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
        """Return what each question's good answers must exceed (questions,); ``bad`` (questions, n) has one at least in each row."""
        return self._mean(scores, bad)

    @staticmethod
    def _mean(scores: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
        return (scores * members).sum(1) / members.sum(1).clamp(min=1)

    def _force(self, seen: _Seen) -> torch.Tensor:
        return (self.beta * (seen.divergence.detach() - self.delta)).clamp(min=0)

    def _seen(self, model: nn.Module, batch: Batch) -> _Seen:
        logits, answers, mask = answer_logits(model, batch), answer_mask(batch), taught(batch)
        current = log_probs_of(logits, batch)
        apart = bounded((self.denominator.log_probs(current, batch) - current) * answers)
        scores = row_means(current if self.score == "log_l" else (-apart).exp(), mask)
        index, groups = group_index(batch)
        asked = torch.zeros(groups, dtype=torch.bool, device=index.device)
        asked[index[mask.any(1)]] = True
        with torch.no_grad():
            entropy = on_answers(entropies(logits.detach()), answers)
        # log pi_old - log pi of tokens that pi_old drew: k1 of KL(pi_old || pi)
        return _Seen(scores, divergence(apart, self.divergence), mask, index, asked, entropy)

    def _sides(self, seen: _Seen, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        member = seen.index[None] == torch.arange(len(seen.asked), device=seen.index.device)[:, None]
        member = member & seen.mask.any(1)[None]
        right = batch["reward"][None] >= self.good
        return member & right, member & ~right

    @staticmethod
    def _per_question(values: torch.Tensor, seen: _Seen) -> torch.Tensor:
        sums = values.new_zeros(len(seen.asked)).index_add(0, seen.index, row_sums(values, seen.mask))
        tokens = values.new_zeros(len(seen.asked)).index_add(0, seen.index, seen.mask.sum(1).to(values.dtype))
        return (sums / tokens.clamp(min=1)).sum() / seen.questions


@dataclass(frozen=True)
class Disco(DiscoB):
    """DisCO-b whose bad answers are weighted by how high they score: J = mean over questions of (mean good s - tau log mean exp(bad s / tau)).

    That is the worst mixture of the bad answers within an entropy of the even one (distributionally robust): a question with one tempting wrong
    answer among many hopeless ones is not called learnt. tau -> infinity gives DisCO-b, tau -> 0 the highest bad answer alone.

    Args:
        tau: temperature, > 0; None for the paper's: 10 with ``log_l`` and 1 with ``ratio``.
    """

    title: ClassVar[str] = "Discriminative constrained optimisation (DisCO)"

    tau: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tau is None or self.tau > 0, f"tau must be > 0, found {self.tau}")

    def _against(self, scores: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
        tau = self.tau or (10.0 if self.score == "log_l" else 1.0)
        inside = (scores / tau).expand(bad.shape).masked_fill(~bad, -torch.inf)
        return tau * (inside.logsumexp(1) - bad.sum(1).to(scores.dtype).log())
