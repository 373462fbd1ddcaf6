"""Voting: several judgements of the same answers become one; plain functions over any judge's scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from outlay.schedules.base import require


def vote(scores: Sequence[Sequence[float]], trust: Sequence[float] | None = None, keep: int | None = None) -> list[float]:
    """Return the voted score of every answer: the sum over judgements, as in arXiv 2504.02495. k judgements of 1 to 10 give k times as many
    values, so fewer ties.

    Args:
        scores: a row a judgement, (judgements, answers). Shuffle the answers between judgements and put the scores back in order.
        trust: how far each judgement is to be trusted, by a second model for instance; with ``keep`` only the most trusted are summed, the
            earlier ones among equals.
        keep: how many to sum, 1 to all; None for all. The paper keeps about half.

    Raises:
        ValueError: when there is no judgement, rows differ in length, or ``trust`` and ``keep`` do not fit.
    """
    require(len(scores) > 0, "a vote needs at least one judgement")
    require(len({len(row) for row in scores}) == 1, f"every judgement must score all answers, found {[len(row) for row in scores]} scores")
    chosen = list(range(len(scores)))
    if keep is not None:
        require(1 <= keep <= len(scores), f"keep must lie in 1..{len(scores)}, found {keep}")
        require(trust is not None, "keep needs trust to choose by")
    if trust is not None:
        require(len(trust) == len(scores), f"trust needs one number a judgement, found {len(trust)} for {len(scores)}")
        chosen = sorted(chosen, key=lambda place: -trust[place])[: len(scores) if keep is None else keep]
    return [math.fsum(scores[place][answer] for place in chosen) for answer in range(len(scores[0]))]


def winners(voted: Sequence[float]) -> list[int]:
    """Return the places of the highest score, all of them where there is a tie."""
    most = max(voted, default=0.0)
    return [place for place, score in enumerate(voted) if score == most]


def judgement_reward(scores: Sequence[float], best: int | None = None, label: float | None = None) -> float:
    """Return what a judgement is worth when the judge itself is trained: 1 or -1.

    Of several answers: 1 when the one at place ``best`` has the strictly highest score. Of one answer: 1 when its score equals ``label``.
    """
    if len(scores) == 1:
        require(label is not None, "the judgement of a single answer needs its label")
        return 1.0 if scores[0] == label else -1.0
    require(best is not None and 0 <= best < len(scores), f"best must be the place of an answer, found {best} for {len(scores)}")
    return 1.0 if winners(scores) == [best] else -1.0
