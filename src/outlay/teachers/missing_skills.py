"""Missing skills: each is practised as often as it was missed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, nearest
from outlay.schedules.base import require
from outlay.teachers.base import Asking, drawn, even


@dataclass(frozen=True)
class MissingSkills:
    """p_i = f_i / sum_j f_j, f_i the failures that evaluations attribute to arm i; even shares before the first evaluation and where
    nothing is missed.

    The paper's model-free reading: the weight of a group is its failures on a probe set. An evaluation's loss of an arm is its share of failures
    (1 - accuracy; any loss that is 0 when nothing is missing will do). What an evaluation did not measure keeps its last value, and what
    none has measured counts as the mean of the others. ``is_difficult`` and ``practice`` are the paper's rules for scored steps and for
    the choice of a fixed set of questions.

    Args:
        mastered: share of failures up to which an arm counts as mastered and is left out, >= 0.
    """

    title: ClassVar[str] = "Missing skills (STAT)"
    paper: ClassVar[Paper | None] = Paper("2510.10023", "Skill-Targeted Adaptive Training", 2025)

    mastered: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.mastered < math.inf, f"mastered must be finite and >= 0, found {self.mastered}")

    def open(self, arms: Sequence[Arm], context: Context) -> MissingSkillsLessons:
        """Return lessons that have seen no evaluation."""
        return MissingSkillsLessons(self, [None] * len(arms))


@dataclass
class MissingSkillsLessons:
    """The latest share of failures of every arm, None before it has been measured."""

    spec: MissingSkills
    _failures: list[float | None] = field(default_factory=list)

    def shares(self, asking: Asking) -> FloatArray:
        """Return failures, normalised."""
        known = [share for share in self._failures if share is not None]
        if not known:
            return even(len(self._failures))
        usual = sum(known) / len(known)
        weights = np.array([usual if share is None else share for share in self._failures])
        weights = np.where(weights > self.spec.mastered, weights, 0.0)
        total = float(weights.sum())
        return np.asarray(weights / total, np.float64) if total > 0 else even(len(weights))

    def choose(self, asking: Asking) -> IntArray:
        """Return arms drawn from the shares."""
        return drawn(self.shares(asking), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Change nothing: failures come from evaluations."""

    def examined(self, losses: FloatArray, progress: float) -> None:
        """Take up the failures that were measured."""
        self._failures = [
            max(0.0, float(loss)) if math.isfinite(loss) else before for before, loss in zip(self._failures, losses.tolist(), strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the failures."""
        return {"failures": list(self._failures)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved failures."""
        self._failures = list(state["failures"])


def is_difficult(scores: Sequence[float], overall: float = 0.85, step: float = 0.7) -> bool:
    """Return whether an answer's steps show that its question is difficult: the last score or their mean is <= ``overall``, or an earlier
    score is <= ``step``.

    Args:
        scores: a process reward for every step, in [0, 1]; not empty.
        overall: the paper's tau1.
        step: the paper's tau2.

    Raises:
        ValueError: when there is no score.
    """
    require(len(scores) > 0, "an answer needs the score of one step at least, found none")
    last, mean = scores[-1], math.fsum(scores) / len(scores)
    return last <= overall or mean <= overall or any(score <= step for score in scores[:-1])


def practice(
    missing: Sequence[Collection[str]], questions: Mapping[str, Sequence[int]], count: int, rng: np.random.Generator, each: int = 5
) -> IntArray:
    """Return the questions to practise, (count,): for every difficult question and every skill missing in its answer ``each`` questions of
    that skill, then a random ``count`` of them all.

    A skill's expected share is that of its misses. Where the draws are fewer than ``count`` the round is repeated; without a difficult question
    all questions are drawn from evenly. A question may come several times, as a skill may be missed several times.

    Args:
        missing: the skills missing in each difficult question's answer; the profiles.
        questions: skill -> numbers of the training questions that need it.
        count: the budget, > 0.
        rng: random stream of this choice alone.
        each: questions drawn for a miss, > 0; the paper's m.

    Raises:
        InputError: when a missing skill has no question.
        ValueError: when count or each is not > 0.
    """
    require(count > 0 and each > 0, f"count and each must be > 0, found {count} and {each}")
    missed = [skill for profile in missing for skill in sorted(profile)]
    for skill in missed:
        if not questions.get(skill):
            raise InputError(f"no question trains the skill {skill!r}{nearest(skill, questions)}")
    if not missed:
        everything = np.array(sorted({number for some in questions.values() for number in some}), np.int64)
        if not len(everything):
            raise InputError("there is no question to practise")
        return np.asarray(rng.choice(everything, count), np.int64)
    found: list[int] = []
    while len(found) < count:
        for skill in missed:
            pool = np.asarray(questions[skill], np.int64)
            found += rng.choice(pool, each, replace=len(pool) < each).tolist()
    return np.asarray(rng.permutation(np.array(found, np.int64))[:count], np.int64)
