"""Fused: a score is averaged with those of texts that are nearly the same."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Reward, Verdict
from outlay.rewards.shaping import open_part
from outlay.schedules.base import require


@dataclass(frozen=True)
class Fused:
    """sum_i w_i r(x_i) over the text itself, with similarity 1, and up to ``most`` known texts of similarity >= ``least``; the weights are the
    similarities divided by their sum. Without such neighbours the reward is as it was. A neighbour that cannot be judged is left out.

    Texts are prompt and answer together. The authors compare sentence embeddings; here it is the cosine of counts of three letters in a row,
    which needs no model.

    Args:
        reward: what is averaged; usually a learned reward.
        texts: JSON Lines file of known texts, such as the reward model's training data: one object a line with ``prompt`` and ``answer``.
        least: lowest similarity of a neighbour, in (0, 1].
        most: neighbours at most, >= 0.
    """

    title: ClassVar[str] = "Fused over similar texts"
    paper: ClassVar[Paper | None] = Paper("2309.16155", "The Trickle-down Impact of Reward (In-)consistency on RLHF", 2023)

    reward: Reward
    texts: Path
    least: float = 0.9
    most: int = 5

    def __post_init__(self) -> None:
        require(0 < self.least <= 1, f"least must lie in (0, 1], found {self.least}")
        require(self.most >= 0, f"most must be >= 0, found {self.most}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Those of ``reward``, as means keep them."""
        return self.reward.bounds

    def open(self, context: Context) -> Judge:
        """Open ``reward`` and read the texts.

        Raises:
            InputError: when the texts cannot be read; or what ``reward`` raises.
        """
        from outlay.prompts.base import Question
        from outlay.rewards.reading_texts import prompts_and_answers

        pairs = prompts_and_answers(self.texts, "known texts")
        known = [
            Answer(Question(prompt), text, len(text.split()), True, len(text.split()) + 1, -1 - i) for i, (prompt, text) in enumerate(pairs)
        ]
        return _Judge(self, open_part(self.reward, context), known, [profile(prompt + text) for prompt, text in pairs], {})


def fuse(score: float, neighbours: Sequence[tuple[float, float]]) -> float:
    """Return the mean of a score and its neighbours' (similarity, score), weighted by similarity."""
    together = [(1.0, score), *neighbours]
    return math.fsum(similarity * value for similarity, value in together) / math.fsum(similarity for similarity, _ in together)


def profile(text: str) -> Counter[str]:
    """Return how often each three letters in a row stand in a text; a shorter text is counted whole."""
    return Counter(text[place : place + 3] for place in range(max(1, len(text) - 2)))


def similarity(first: Counter[str], second: Counter[str]) -> float:
    """Return the cosine of two profiles, in [0, 1]."""
    inner = sum(count * second[part] for part, count in first.items())
    return min(1.0, inner / math.sqrt(sum(n * n for n in first.values()) * sum(n * n for n in second.values())))


@dataclass(frozen=True)
class _Judge:
    rule: Fused
    inner: Judge
    known: list[Answer]
    profiles: list[Counter[str]]
    told: dict[int, Verdict]  # verdicts on known texts, as far as they were needed

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        near = [self._near(answer) for answer in answers]
        unknown = sorted({place for places in near for place in places} - set(self.told))
        if unknown:
            self.told.update(zip(unknown, self.inner.judge([self.known[place] for place in unknown]), strict=True))
        return [self._fused(verdict, places) for verdict, places in zip(self.inner.judge(answers), near, strict=True)]

    def _near(self, answer: Answer) -> dict[int, float]:
        mine = profile(answer.question.text + answer.text)
        found = {place: similarity(mine, other) for place, other in enumerate(self.profiles)}
        kept = sorted((place for place, value in found.items() if value >= self.rule.least), key=lambda place: (-found[place], place))
        return {place: found[place] for place in kept[: self.rule.most]}

    def _fused(self, verdict: Verdict, places: dict[int, float]) -> Verdict:
        if verdict.outcome == "unjudged":
            return verdict
        neighbours = [(value, self.told[place].value) for place, value in places.items() if self.told[place].outcome != "unjudged"]
        low, high = self.rule.bounds
        return Verdict(verdict.outcome, min(high, max(low, fuse(verdict.value, neighbours))), verdict.why)
