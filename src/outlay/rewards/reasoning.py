"""Reasoning: the problem's own scorer says whether an answer is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import MissingExtra
from outlay.rewards.base import Answer, Judge, Verdict, failed, passed, unjudged
from outlay.rewards.reading import answer_part
from outlay.schedules.base import require

if TYPE_CHECKING:
    from outlay.prompts.base import Question


@dataclass(frozen=True)
class Reasoning:
    """What the scorer of the problem's own task gives the answer; one answer can often be written in several ways.

    A question says whose problem it is:

    - ``extra["entry"]``, made by the reasoning-gym dataset ``extra["task"]``: that dataset's scorer, a number in [0, 1]. A task of
      ``outlay.tasks.reasoning`` stands for the dataset that makes its problems.
    - otherwise ``extra["task"]``, or what stands before the slash in ``kind`` (``gcd/2``), is a task of ``outlay.tasks.reasoning`` and the
      reference a right answer: 1 or 0.

    A question that says neither, and an answer that makes the scorer fail, cannot be judged. Some of reasoning-gym's scorers evaluate what
    they are given, therefore it is judged in a process of its own.

    Args:
        threshold: lowest score that passes, in (0, 1].
        partial: a score is the reward; otherwise an answer that passes is worth 1, any other 0.
        end_required: an answer that did not end by itself is wrong, whatever it says.
        inside: name of the tag that holds the answer; empty for the whole text.
    """

    title: ClassVar[str] = "Reasoning problems' own scorers"
    paper: ClassVar[Paper | None] = Paper("2505.24760", "REASONING GYM: Reasoning Environments for RL with Verifiable Rewards", 2025)
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
        """Return the judge. Reasoning-gym is needed for its own entries alone."""
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer.

        Raises:
            MissingExtra: for an entry of reasoning-gym where that is not installed.
        """
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Answer) -> Verdict:
        if self.end_required and not answer.ended:
            return failed()
        given = answer_part(answer.text, self.inside)
        if given is None:
            return failed()
        question = answer.question
        entry = question.extra.get("entry")
        found = _own_score(question, given) if entry is None else _gym_score(str(question.extra.get("task", "")), entry, given)
        if isinstance(found, Verdict):
            return found
        right = found >= self.threshold
        value = found if self.partial else float(right)
        return passed(value) if right else failed(value)


def _own_score(question: Question, given: str) -> float | Verdict:
    from outlay.tasks.reasoning import TASKS, Problem, score

    task, _, level = question.kind.partition("/")
    task = str(question.extra.get("task", task))
    if task not in TASKS:
        return unjudged(f"no scorer for {task!r}: not a task of outlay.tasks.reasoning, and the question holds no entry of reasoning-gym")
    if not question.reference.strip():
        return unjudged("the question has no reference")
    problem = Problem(task, int(level) if level.isdigit() else 1, question.text, question.reference.strip(), question.place)
    return float(score(problem, given))


def _gym_score(task: str, entry: object, given: str) -> float | Verdict:
    try:
        import reasoning_gym
    except ImportError:
        raise MissingExtra("reasoning-gym", "rl") from None
    from outlay.tasks.reasoning import TASKS

    try:
        scorer = reasoning_gym.get_score_answer_fn(TASKS[task].source if task in TASKS else task)
    except ValueError:
        return unjudged(f"reasoning-gym has no dataset {task!r}")
    try:
        return min(1.0, max(0.0, float(scorer(given, entry))))
    except Exception as error:  # a scorer may choke on what a model wrote in any way
        return unjudged(f"the scorer of {task!r} failed: {type(error).__name__}: {error}")
