"""Reasoning: the problem's own scorer says whether an answer is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import MissingExtra
from outlay.prompts.base import Question
from outlay.rewards.base import Answer, Judge, Verdict, failed, passed, unjudged
from outlay.rewards.reading import given_answer
from outlay.schedules.base import require

if TYPE_CHECKING:
    from outlay.tasks.reasoning import Problem

_PAPER = Paper("2505.24760", "REASONING GYM: Reasoning Environments for RL with Verifiable Rewards", 2025)


@dataclass(frozen=True)
class Reasoning:
    """1 for a right answer to a problem of ``outlay.tasks.reasoning``, else 0; one answer can often be written in several ways.

    ``extra["task"]``, or what stands before the slash in ``kind`` (``gcd/2``), says which task a question is of, and its reference is a right
    answer. A question of no such task, or without a reference, cannot be judged.

    Args:
        end_required: an answer that did not end by itself is wrong, whatever it says.
        inside: name of the tag that holds the answer; empty for the whole text.
    """

    title: ClassVar[str] = "Reasoning problems' own scorers"
    paper: ClassVar[Paper | None] = _PAPER

    end_required: bool = True
    inside: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def open(self, context: Context) -> Judge:
        """Return the judge."""
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Answer) -> Verdict:
        from outlay.tasks.reasoning import score

        problem = _problem(answer.question)
        if isinstance(problem, Verdict):
            return problem
        given = given_answer(answer, self.inside, self.end_required)
        return passed() if given is not None and score(problem, given) else failed()


@dataclass(frozen=True)
class ReasoningGym:
    """What the scorer of a reasoning-gym dataset gives the answer, in [0, 1].

    A question holds its entry in ``extra["entry"]``, made by the dataset ``extra["task"]``; a task of ``outlay.tasks.reasoning`` stands for the
    dataset that makes its problems. A question without them, and an answer that makes the scorer fail, cannot be judged. Some of these scorers
    evaluate what they are given, therefore it is judged in a process of its own.

    Args:
        threshold: lowest score that passes, in (0, 1].
        partial: a score is the reward; otherwise an answer that passes is worth 1, any other 0.
        end_required: an answer that did not end by itself is wrong, whatever it says.
        inside: name of the tag that holds the answer; empty for the whole text.
    """

    title: ClassVar[str] = "Reasoning-gym's scorers"
    paper: ClassVar[Paper | None] = _PAPER
    isolate: ClassVar[bool] = True

    threshold: float = 0.99
    partial: bool = True
    end_required: bool = True
    inside: str = ""

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 1, f"threshold must lie in (0, 1], found {self.threshold}")

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def open(self, context: Context) -> Judge:
        """Return the judge.

        Raises:
            MissingExtra: without reasoning-gym.
        """
        try:
            import reasoning_gym  # noqa: F401
        except ImportError:
            raise MissingExtra("reasoning-gym", "rl") from None
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Answer) -> Verdict:
        extra = answer.question.extra
        task = str(extra.get("task", ""))
        if "entry" not in extra:
            return unjudged("the question holds no entry of reasoning-gym")
        scorer = _gym_scorer(task)
        if scorer is None:
            return unjudged(f"reasoning-gym has no dataset {task!r}")
        given = given_answer(answer, self.inside, self.end_required)
        if given is None:
            return failed()
        try:
            found = min(1.0, max(0.0, float(scorer(given, extra["entry"]))))
        except Exception as error:  # a scorer may choke on what a model wrote in any way
            return unjudged(f"the scorer of {task!r} failed: {type(error).__name__}: {error}")
        right = found >= self.threshold
        value = found if self.partial else float(right)
        return passed(value) if right else failed(value)


def _problem(question: Question) -> Problem | Verdict:
    """Return the problem that a question asks, as far as its scorer looks at it."""
    from outlay.tasks.reasoning import TASKS, Problem

    task = str(question.extra.get("task", question.kind.partition("/")[0]))
    if task not in TASKS:
        return unjudged(f"no scorer for {task!r}; it is no task of outlay.tasks.reasoning")
    if not question.reference.strip():
        return unjudged("the question has no reference")
    return Problem(task, 1, question.text, question.reference.strip(), question.place)


def _gym_scorer(task: str) -> Callable[[str, Any], float] | None:
    """Return the scorer of a dataset; None where there is none of that name."""
    import reasoning_gym

    from outlay.tasks.reasoning import TASKS

    try:
        found: Callable[[str, Any], float] = reasoning_gym.get_score_answer_fn(TASKS[task].source if task in TASKS else task)
    except ValueError:
        return None
    return found
