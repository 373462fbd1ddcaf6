"""Reference metric: how much an answer resembles reference texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import MissingExtra
from outlay.rewards.base import Answer, Judge, Verdict, failed, passed, unjudged
from outlay.rewards.reading import answer_part
from outlay.schedules.base import require


@dataclass(frozen=True)
class ReferenceMetric:
    """Similarity in [0, 1] to the question's reference and to those of ``extra["references"]``.

    - ``bleu``: sentence BLEU of orders 1 to 4 by sacrebleu; orders 2 to 4 add 1 to matches and to counts, so that short texts are worth
      something. Counts are clipped by the most that one reference holds; the brevity penalty takes the reference nearest in length.
    - ``chrf``: sacrebleu's chrF2 over characters, of the nearest reference.
    - ``rouge_l``: F1 of the longest common subsequence of words, of the nearest reference.
    - ``bleu_rouge``: harmonic mean of ``bleu`` and ``rouge_l``.

    The authors smooth all orders and penalise against the shortest reference. An empty answer is worth 0. Text inside ``<answer>`` alone is
    looked at where there is such a tag.

    Args:
        metric: which one.
        inside: name of that tag; empty for always the whole text.
        passing: lowest value that passes, in (0, 1].
    """

    title: ClassVar[str] = "Similarity to references"
    paper: ClassVar[Paper | None] = Paper("2505.11080", "BLEUBERI: BLEU is a surprisingly effective reward for instruction following", 2025)

    metric: Literal["bleu", "chrf", "rouge_l", "bleu_rouge"] = "bleu"
    inside: str = "answer"
    passing: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.passing <= 1, f"passing must lie in (0, 1], found {self.passing}")

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def open(self, context: Context) -> Judge:
        """Return the judge.

        Raises:
            MissingExtra: without sacrebleu, which ``rouge_l`` alone does not need.
        """
        if self.metric != "rouge_l":
            try:
                import sacrebleu  # noqa: F401
            except ImportError:
                raise MissingExtra("sacrebleu", "rl") from None
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Answer) -> Verdict:
        question = answer.question
        references = [text for text in (question.reference, *question.extra.get("references", ())) if text.strip()]
        if not references:
            return unjudged("the question has no reference")
        part = answer_part(answer.text, self.inside)
        text = answer.text.strip() if part is None else part
        value = min(1.0, max(0.0, self.value(text, references))) if text else 0.0
        return passed(value) if value >= self.passing else failed(value)

    def value(self, text: str, references: Sequence[str]) -> float:
        """Return the similarity of a text that is not empty."""
        if self.metric == "bleu":
            return sentence_bleu(text, references)
        if self.metric == "chrf":
            return sentence_chrf(text, references)
        if self.metric == "rouge_l":
            return rouge_l(text, references)
        first, second = sentence_bleu(text, references), rouge_l(text, references)
        return 2 * first * second / (first + second) if first + second else 0.0


def sentence_bleu(text: str, references: Sequence[str]) -> float:
    """Return smoothed sentence BLEU-4 in [0, 1]."""
    from sacrebleu.metrics import BLEU

    # a corpus of one sentence: for sentences it advises other settings each time
    return float(BLEU(smooth_method="add-k", smooth_value=1).corpus_score([text], [[reference] for reference in references]).score) / 100


def sentence_chrf(text: str, references: Sequence[str]) -> float:
    """Return chrF2 in [0, 1]."""
    from sacrebleu.metrics import CHRF

    return float(CHRF().sentence_score(text, list(references)).score) / 100


def rouge_l(text: str, references: Sequence[str]) -> float:
    """Return ROUGE-L in [0, 1]: 2 l / (words + reference words) with l the longest common subsequence of lower-case words; the best of the
    references. 0 for a text without words."""
    words = text.lower().split()
    scores = [0.0]
    for reference in references:
        others = reference.lower().split()
        common = _common_subsequence(words, others)
        scores.append(2 * common / (len(words) + len(others)) if common else 0.0)
    return max(scores)


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    if not Counter(first) & Counter(second):
        return 0
    above = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[-1]))
        above = row
    return above[-1]
