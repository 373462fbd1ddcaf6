"""The repair seam: what becomes of groups whose answers are all worth the same, which teach nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch

from outlay.context import Context
from outlay.prompts.base import Question
from outlay.rollout.base import Completion

if TYPE_CHECKING:  # sources read repairs
    from outlay.sources.base import Batch


@dataclass
class Attempt:
    """One answer.

    Args:
        prompt: tokens that it is trained as the answer to; not always those that it was generated from.
        completion: what was written.
        value: what it is worth.
        judged: whether every judge could tell.
        replayed: whether it was generated for an earlier batch.
    """

    prompt: tuple[int, ...]
    completion: Completion
    value: float = 0.0
    judged: bool = False
    replayed: bool = False


@dataclass
class Group:
    """The answers to one question.

    Args:
        question: what was asked.
        attempts: its answers.
        arm: number of the arm that the question was chosen from; -1 where nobody chose.
        greedy: the likeliest answer, where the objective asks for it.
        hinted: share of its answers that were given help, in [0, 1].
        begun: what its answers begin with: part of the prompt, and judged as part of the answer.
    """

    question: Question
    attempts: list[Attempt]
    arm: int = -1
    greedy: Attempt | None = None
    hinted: float = 0.0
    begun: str = ""

    @property
    def values(self) -> list[float]:
        """What its judged answers are worth."""
        return [one.value for one in self.attempts if one.judged]

    @property
    def varied(self) -> bool:
        """Whether its judged answers differ in worth: only then does it carry a signal."""
        return len(set(self.values)) > 1

    @property
    def failed(self) -> bool:
        """Whether all of its judged answers are worth 0 or less, and there is one."""
        return bool(self.values) and max(self.values) <= 0

    @property
    def rate(self) -> float:
        """Mean worth of its judged answers, cut off at 0 and 1; nan without one."""
        return sum(min(max(value, 0.0), 1.0) for value in self.values) / len(self.values) if self.values else float("nan")


class Workshop(Protocol):
    """What a repair may do, all of it charged. When the budget ends in it, what comes back lacks the groups that are not whole, ``cut`` is True from
    then on, and nothing more can be done."""

    @property
    def progress(self) -> float:
        """Share of the stage's budget that has been spent, in [0, 1]."""
        ...

    @property
    def samples(self) -> int:
        """Answers that a question gets unless somebody says otherwise."""
        ...

    @property
    def limit(self) -> int:
        """New tokens that an answer may have."""
        ...

    @property
    def cut(self) -> bool:
        """Whether the budget has ended."""
        ...

    @property
    def rng(self) -> np.random.Generator:
        """The random stream of this repair alone."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Return a text's tokens, without marks of the tokenizer's own."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones left visible."""
        ...

    def ask(self, count: int) -> list[Group]:
        """Return judged groups of further questions, chosen as the first were."""
        ...

    def answer(self, questions: Sequence[Question], samples: int, begun: Sequence[str] | None = None) -> list[Group]:
        """Return judged groups of new answers to these questions, whose texts may have been changed; judges see the question as it is given here.
        Groups come in the questions' order, hold the questions as given, and are of arm -1 unless the shop knows better; their ``hinted`` is 1. An
        answer's ``prompt`` is all that it was generated from, ``begun`` included. The same question may come several times, also in one call, and is
        answered anew each time, by other random streams. Questions that are now longer than the model reads are left out.

        Args:
            questions: what is asked.
            samples: answers to each, > 0.
            begun: what each question's answers begin with: it follows the prompt, is not generated, and is judged as part of the answer. None
                for answers from their beginning.
        """
        ...

    def write(self, prompts: Sequence[tuple[int, ...]], samples: int, limit: int) -> list[list[Completion]]:
        """Return unjudged completions of bare tokens, ``samples`` of each, all of them whole; empty when the budget has ended. The same prompt given
        again is continued anew."""
        ...

    def judge(self, question: Question, texts: Sequence[str]) -> list[tuple[float, bool]]:
        """Return what texts are worth as answers to a question, and whether that could be judged."""
        ...

    def easier(self, group: Group) -> Question | None:
        """Return a question of the same kind that is easier by one step; None where there is none."""
        ...


@runtime_checkable
class Mending(Protocol):
    """A repair that follows a run."""

    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        """Return the groups that are trained on: at most ``wanted`` of them.

        Args:
            groups: what was generated, judged.
            wanted: groups that fill the batch.
            shop: generates more, and charges it.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, as plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        ...


@runtime_checkable
class Replays(Mending, Protocol):
    """A repair that fills what teaches nothing with answers of earlier batches, once advantages are known."""

    def replay(self, batch: Batch, padding: int, rng: np.random.Generator) -> Batch:
        """Return the prepared batch with rows replaced.

        Args:
            batch: as ``outlay.objectives.sequences`` lays it out, with the columns that preparing added.
            padding: token that pads.
            rng: random stream of this batch alone.
        """
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that belong to ``state_dict``."""
        ...

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up saved tensors, after ``load_state_dict``."""
        ...


@runtime_checkable
class Repair(Protocol):
    """Describes what is done with groups that carry no signal."""

    def open(self, context: Context) -> Mending:
        """Return the repair, which knows nothing yet."""
        ...


class Forgetful:
    """A repair that remembers nothing; a base for those that are."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""
