"""Reward bench: what a reward model is worth before it is trained against. Measures of RewardBench 2 (arXiv 2506.01937) on scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from outlay.schedules.base import require


def best_of_four_accuracy(scores: Sequence[Sequence[float]]) -> float:
    """Return the share of questions whose chosen answer has the strictly highest score; a tie at the top counts as wrong.

    Args:
        scores: a row a question, the chosen answer's first and then those of the rejected ones: three in the benchmark, at least one.
    """
    require(len(scores) > 0, "an accuracy needs at least one question")
    require(all(len(row) >= 2 for row in scores), "every question needs a chosen and at least one rejected answer")
    return sum(row[0] > max(row[1:]) for row in scores) / len(scores)


@dataclass(frozen=True)
class Tie:
    """A question asked twice: once with one right answer among wrong ones, once with several that are equally right.

    Args:
        reference: scores of (right, wrong) answers where one is right.
        tied: the same where several are.
    """

    reference: tuple[Sequence[float], Sequence[float]]
    tied: tuple[Sequence[float], Sequence[float]]

    def __post_init__(self) -> None:
        require(
            all(len(side) > 0 for version in (self.reference, self.tied) for side in version), "both versions need right and wrong answers"
        )


def ties_score(ties: Sequence[Tie]) -> float:
    """Return the score of the Ties section: rewarded is to tell right from wrong, and the right ones less apart than right is from wrong.

    With accurate = worst right > best wrong, spread = best right - worst right of the tied version, gap = worst right - best wrong:
    0.30 accuracy(tied) + 0.30 accuracy(reference) + 0.20 mean(gap_tied > spread) + 0.20 mean(min(gap_ref, gap_tied) > spread)
    + 0.01 mean(tanh(min(gap_ref, gap_tied) / spread - 1)), in which 0 / 0 counts 0.
    """
    require(len(ties) > 0, "a score needs at least one question")
    reference = [_gap(tie.reference) for tie in ties]
    tied = [_gap(tie.tied) for tie in ties]
    spread = [max(tie.tied[0]) - min(tie.tied[0]) for tie in ties]
    least = [min(pair) for pair in zip(reference, tied, strict=True)]
    parts = (
        (0.30, [gap > 0 for gap in tied]),
        (0.30, [gap > 0 for gap in reference]),
        (0.20, [gap > width for gap, width in zip(tied, spread, strict=True)]),
        (0.20, [gap > width for gap, width in zip(least, spread, strict=True)]),
        (0.01, [_margin(gap, width) for gap, width in zip(least, spread, strict=True)]),
    )
    return sum(weight * math.fsum(values) / len(ties) for weight, values in parts)


def _gap(version: tuple[Sequence[float], Sequence[float]]) -> float:
    right, wrong = version
    return min(right) - max(wrong)


def _margin(gap: float, spread: float) -> float:
    if spread == 0:
        return 0.0 if gap == 0 else math.copysign(1.0, gap)  # tanh of an infinite quotient
    return math.tanh(gap / spread - 1)
