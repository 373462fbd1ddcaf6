"""Choosing: which questions are asked and how many answers each gets, by a teacher, an estimator and an allocator that follow one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from outlay.allocators.base import Allocator, Claims
from outlay.arms import FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.errors import InputError
from outlay.estimators.base import Estimator
from outlay.estimators.features import text_features
from outlay.prompts.base import ArmedQuestions, Question, Questions
from outlay.rng import numpy_generator
from outlay.sources.looking import concentrations, prompt_features
from outlay.teachers.base import Asking, Examined, Ranks, Screens, Teacher

if TYPE_CHECKING:
    from outlay.sources.base import Actor

#: the account that pays for what a teacher asks of the model
ACCOUNT = "teacher"


@dataclass(frozen=True)
class Chosen:
    """Questions that are asked.

    Args:
        questions: in order.
        arms: the arm of each, (questions,).
        features: what the estimator reads of each, (questions, width); None when it reads nothing.
        rates: estimated success rate of each, (questions,); nan where there is no ground for one.
    """

    questions: list[Question]
    arms: IntArray
    features: FloatArray | None
    rates: FloatArray


class Choosing:
    """Teacher, estimator and allocator of a run.

    Args:
        questions: what can be chosen among.
        teacher: who chooses.
        estimator: how likely an answer is right.
        allocator: how many answers each gets; None for the same number.
        context: seed and tokenizer.

    Raises:
        InputError: when the questions have no arms, or these lack what a part goes by.
    """

    def __init__(self, questions: Questions, teacher: Teacher, estimator: Estimator, allocator: Allocator | None, context: Context) -> None:
        if not isinstance(questions, ArmedQuestions):
            raise InputError("a teacher chooses among arms, and these prompts have none; put them into prompts/pool, with a size")
        self._questions, self._seed, self._tokenizer = questions, context.seed, context.tokenizer
        self.arms = questions.arms
        self.lessons = teacher.open(self.arms, context)
        self.estimates = estimator.open(self.arms, context)
        self._reads, self.allocator = estimator.reads, allocator
        self._ranked = not isinstance(self.lessons, Ranks)
        if not self._ranked and not all(arm.text for arm in self.arms):
            raise InputError(f"{type(teacher).__name__} ranks single questions; put the prompts into prompts/pool, with a size")

    def choose(self, count: int, place: int, asked: Sequence[int], actor: Actor) -> tuple[Chosen | None, list[int]]:
        """Return the next questions, and the arms of all that were looked at to find them. None when the budget does not bear that.

        Args:
            count: questions wanted.
            place: number of the first question of this generation; with the number of those asked since, it names the random stream.
            asked: arms of what was asked in this generation so far.
            actor: the model, and who pays.
        """
        asking = self._asking(count, place + len(asked), actor.progress)
        if not self._ranked and not self._rank(actor):
            return None, []
        lessons = self.lessons
        over = lessons.over if isinstance(lessons, Screens) else 1
        wider = Asking(count * over, asking.progress, asking.rates, asking.seen, asking.rng)
        arms = lessons.choose(wider)
        questions = self._questions.pick([*asked, *arms.tolist()])[len(asked) :]
        features = self._features(questions, actor)
        if features is None and self._reads != "nothing":
            return None, []
        rates = self.estimates.of(arms, features)
        kept = lessons.screen(rates, asking) if isinstance(lessons, Screens) else np.arange(count)
        chosen = Chosen([questions[i] for i in kept], arms[kept], features[kept] if features is not None else None, rates[kept])
        return chosen, arms.tolist()

    def counts(self, chosen: Chosen, total: int, low: int, high: int | None, known: Sequence[Outcome | None]) -> IntArray:
        """Return how many answers each question gets of ``total``.

        Args:
            chosen: the questions.
            total: answers in all.
            low: least that each gets.
            high: most; None for no bound.
            known: what the probe brought of each question, where there was one.
        """
        assert self.allocator is not None
        rates, seen = chosen.rates.copy(), self.estimates.seen()[chosen.arms]
        right, wrong = np.full(len(rates), np.nan), np.full(len(rates), np.nan)
        for i, one in enumerate(known):
            if one is not None and one.rewards:
                rates[i], seen[i] = one.rate, len(one.rewards)
                successes = np.array(one.successes) > 0.5
                norms = np.array(one.norms) if one.norms else np.full(len(successes), np.nan)
                right[i] = norms[successes].mean() if successes.any() else np.nan
                wrong[i] = norms[~successes].mean() if not successes.all() else np.nan
        norms_known = self.allocator.needs_norms
        claims = Claims(rates, seen, right if norms_known else None, wrong if norms_known else None)
        return self.allocator.allocate(claims, total, low=low, high=high)

    def pick(self, arms: Sequence[int]) -> list[Question]:
        """Return the next questions of these arms; nothing moves."""
        return self._questions.pick(arms)

    def use(self, arms: Sequence[int]) -> None:
        """Move past questions that have been looked at."""
        self._questions.use(arms)

    def learn(self, chosen: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        """Let the estimator and the teacher learn from what came of questions."""
        self.estimates.update(outcomes)
        self.lessons.update(np.asarray(chosen, np.int64), outcomes)

    def examined(self, metrics: Mapping[str, float], watch: str, progress: float) -> None:
        """Let a teacher that wants to know of evaluations learn that arm's share of wrong answers is 1 - metrics[watch/arm]."""
        if isinstance(self.lessons, Examined):
            found = np.array([1.0 - metrics.get(f"{watch}/{arm.name}", float("nan")) for arm in self.arms])
            if not np.all(np.isnan(found)):
                self.lessons.examined(found, progress)

    def shares(self, place: int, progress: float) -> dict[str, float]:
        """Return the share of the next questions that each category is expected to get."""
        shares, found = self.lessons.shares(self._asking(1, place, progress)), dict[str, float]()
        for arm, share in zip(self.arms, shares.tolist(), strict=True):
            found[arm.category] = found.get(arm.category, 0.0) + share
        return found

    def easier(self, arm: int) -> int | None:
        """Return the arm that is easier than this one by one step and else of its kind (``gcd/1`` for ``gcd/2``), or None."""
        mine = self.arms[arm]
        kin = [
            (other.difficulty, i)
            for i, other in enumerate(self.arms)
            if other.difficulty is not None
            and mine.difficulty is not None
            and other.difficulty < mine.difficulty
            and _kind(other) == _kind(mine)
        ]
        return max(kin, key=lambda pair: (pair[0], -pair[1]))[1] if kin else None

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes."""
        return {"lessons": self.lessons.state_dict(), "estimates": self.estimates.state_dict(), "ranked": self._ranked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.lessons.load_state_dict(state["lessons"])
        self.estimates.load_state_dict(state["estimates"])
        self._ranked = bool(state["ranked"])

    def _asking(self, count: int, place: int, progress: float) -> Asking:
        rng = numpy_generator(self._seed, "sources/rollouts/teacher", place)
        return Asking(count, progress, self.estimates.rates(), self.estimates.seen(), rng)

    def _features(self, questions: Sequence[Question], actor: Actor) -> FloatArray | None:
        if self._reads == "text":
            return text_features([question.text for question in questions])
        return prompt_features(actor, questions, self._tokenizer, ACCOUNT) if self._reads == "model" else None

    def _rank(self, actor: Actor) -> bool:
        assert isinstance(self.lessons, Ranks)
        scores = concentrations(actor, [Question(arm.text) for arm in self.arms], self._tokenizer, ACCOUNT)
        if scores is None:
            return False
        self.lessons.ranked(scores)
        self._ranked = True
        return True


def _kind(arm: Any) -> str:
    return str(arm.category).rpartition("/")[0] or str(arm.category)
