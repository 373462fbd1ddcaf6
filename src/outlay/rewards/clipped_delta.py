"""Clip and delta: rewards of steps that cannot be earned by adding steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar, Literal

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Reward, Verdict, unjudged
from outlay.rewards.exact_answer import Exact
from outlay.rewards.shaping import open_part
from outlay.schedules.base import require


@dataclass(frozen=True)
class ClippedDelta:
    """Success plus alpha times shaped scores of the steps; a raw sum of scores would grow with every step that is added.

    Clip: r'_k = min(r_k - eta, 0), so that no step is worth more than nothing. Delta: r'_k = r_k - r_(k+1) for k < K, whose sum from step k on
    is r_k again. Both: first clip, then delta. Value: r_success + alpha sum_k r'_k; ``step_rewards`` gives them apart, for methods that credit
    tokens. The text's steps are its parts between ``split``, blank ones left out; step k is scored as the answer that ends with it, which
    counts as ended when the whole does and it is the last.

    The paper's eta and alpha are not known to us: 0.5 is the middle of scores in [0, 1], and 1 leaves them as they are.

    Args:
        score: scores a beginning of an answer, with bounds within [0, 1]; usually a learned reward with a sigmoid.
        correct: success, by what passes: 1 or 0.
        eta: score from which a clipped step loses nothing, in [0, 1].
        alpha: weight of the steps, finite, >= 0.
        clip: whether to clip.
        delta: whether to take differences.
        last: with ``delta``, whether the last step keeps r_K or gets 0.
        split: what stands between steps.
    """

    title: ClassVar[str] = "Clip and delta of step scores"
    paper: ClassVar[Paper | None] = Paper("2410.15115", "On Designing Effective RL Reward at Training Time for LLM Reasoning", 2024)

    score: Reward
    correct: Reward = field(default_factory=Exact)
    eta: float = 0.5
    alpha: float = 1.0
    clip: bool = True
    delta: bool = True
    last: Literal["keep", "drop"] = "keep"
    split: str = "\n\n"

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, f"eta must lie in [0, 1], found {self.eta}")
        require(0 <= self.alpha < math.inf, f"alpha must be a finite number >= 0, found {self.alpha}")
        require(bool(self.split), "split must not be empty")
        low, high = self.score.bounds
        require(low >= 0 and high <= 1, f"the scores of steps must lie in [0, 1], found bounds {low} and {high}; give the reward a sigmoid")

    @property
    def bounds(self) -> tuple[float, float]:
        """Those of the sum, which only differences keep finite on both sides."""
        low, high = (-self.eta, 0.0) if self.clip else (0.0, 1.0)
        if self.delta and self.last == "drop":
            low, high = low - high, high - low
        elif not self.delta:
            low, high = (-math.inf, 0.0) if self.clip else (0.0, math.inf)
        if self.alpha == 0:
            return 0.0, 1.0
        return self.alpha * low, 1.0 + self.alpha * high

    def open(self, context: Context) -> Judge:
        """Open both; raises what they raise."""
        return _Judge(self, open_part(self.score, context), open_part(self.correct, context))

    def shaped(self, scores: Sequence[float]) -> list[float]:
        """Return r'_k, one a step, of scores r_k in [0, 1]."""
        kept = [min(score - self.eta, 0.0) for score in scores] if self.clip else list(scores)
        if not self.delta or not kept:
            return kept
        return [now - after for now, after in pairwise(kept)] + [kept[-1] if self.last == "keep" else 0.0]

    def step_rewards(self, scores: Sequence[float], success: bool) -> list[float]:
        """Return alpha r'_k, one a step, with the success added to the last; their sum is the value of an answer with such steps."""
        found = [self.alpha * value for value in self.shaped(scores)] or [0.0]
        return [*found[:-1], found[-1] + success]


@dataclass(frozen=True)
class _Judge:
    rule: ClippedDelta
    score: Judge
    correct: Judge

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        beginnings = [self._beginnings(answer) for answer in answers]
        flat = [one for group in beginnings for one in group]
        scores = iter(self.score.judge(flat) if flat else [])
        verdicts = []
        for group, verdict in zip(beginnings, self.correct.judge(answers), strict=True):
            steps = [next(scores) for _ in group]
            unknown = [step.why for step in steps if step.outcome == "unjudged"]
            if verdict.outcome == "unjudged" or unknown:
                verdicts.append(verdict if verdict.outcome == "unjudged" else unjudged(f"a step could not be scored: {unknown[0]}"))
                continue
            rewards = self.rule.step_rewards([step.value for step in steps], verdict.outcome == "passed")
            low, high = self.rule.bounds  # the last bit of a sum of differences may lie outside
            verdicts.append(Verdict(verdict.outcome, min(high, max(low, math.fsum(rewards))), verdict.why))
        return verdicts

    def _beginnings(self, answer: Answer) -> list[Answer]:
        parts = answer.text.split(self.rule.split)
        ends = [place for place, part in enumerate(parts) if part.strip()]
        texts = [self.rule.split.join(parts[: end + 1]) for end in ends]
        # tokens of a part are not known; a share of the whole by its text serves rewards that ask
        sizes = [round(answer.tokens * len(text) / max(1, len(answer.text))) for text in texts]
        return [
            replace(answer, text=text, tokens=size, ended=answer.ended and place == len(texts) - 1)
            for place, (text, size) in enumerate(zip(texts, sizes, strict=True))
        ]
