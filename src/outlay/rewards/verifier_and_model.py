"""Verifier and model: a learned score ranks answers within right and wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Reward, Verdict
from outlay.rewards.exact_answer import Exact
from outlay.rewards.shaping import Shaped, open_part
from outlay.schedules.base import require


@dataclass(frozen=True)
class VerifierAndModel:
    """sigmoid(alpha m) + (v - 1) with a model's score m and a verifier's word v of 0 or 1: every right answer outranks every wrong one.

    An answer that either cannot judge is not judged.

    Args:
        model: gives m, a number without bounds; usually a learned reward.
        verifier: gives v, by what passes.
        alpha: steepness, > 0.
    """

    title: ClassVar[str] = "Verifier and reward model"
    paper: ClassVar[Paper | None] = Paper("2409.12122", "Qwen2.5-Math Technical Report", 2024)

    model: Reward
    verifier: Reward = field(default_factory=Exact)
    alpha: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.alpha < math.inf, f"alpha must be a finite number > 0, found {self.alpha}")

    @property
    def bounds(self) -> tuple[float, float]:
        """-1 and 1."""
        return -1.0, 1.0

    def open(self, context: Context) -> Judge:
        """Open both; raises what they raise."""
        return _Both(open_part(self.model, context), open_part(self.verifier, context), self.alpha)


@dataclass(frozen=True)
class _Both:
    model: Judge
    verifier: Judge
    alpha: float

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        scores = self.model.judge(answers)
        values = [sigmoid(self.alpha * score.value) for score in scores]
        found = Shaped(self.verifier, lambda _, verdicts: self._values(values, verdicts)).judge(answers)
        return [score if score.outcome == "unjudged" else verdict for score, verdict in zip(scores, found, strict=True)]

    @staticmethod
    def _values(values: Sequence[float], verdicts: Sequence[Verdict]) -> list[float]:
        return [value + (verdict.outcome == "passed") - 1.0 for value, verdict in zip(values, verdicts, strict=True)]


def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1.0 + math.tanh(0.5 * x))
