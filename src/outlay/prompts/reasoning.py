"""Reasoning: fresh verifiable problems without end."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from outlay import rng
from outlay.arms import Arm
from outlay.catalog import Paper
from outlay.context import Context
from outlay.prompts.base import Question

if TYPE_CHECKING:
    from outlay.tasks.reasoning import Problem


@dataclass(frozen=True)
class ReasoningPrompts:
    """Problems of chosen tasks and levels, in equal numbers, drawn afresh for as long as they are asked for.

    No held-out question is ever asked: which side a question belongs to follows from what it asks, whatever the seed. A level with few
    different questions repeats them.

    Args:
        tasks: task -> levels, such as ``{gcd: [1, 2], reverse: [3]}``; level 1 is the easiest.
        style: ``short`` for operands only (``g49,28=``), ``english`` for the full sentence.
        chat: put the prompt into the tokenizer's chat template as the user's message.
    """

    title: ClassVar[str] = "Fresh reasoning problems"
    paper: ClassVar[Paper | None] = None

    tasks: dict[str, tuple[int, ...]]
    style: Literal["short", "english"] = "short"
    chat: bool = False

    def __post_init__(self) -> None:
        # sources bring torch, which judges in processes of their own do without
        from outlay.sources.prompts import check_tasks

        check_tasks(self.tasks)

    def open(self, context: Context) -> _Problems:
        """Return the questions, drawn from the stream (seed, "prompts/reasoning").

        Raises:
            MissingExtra: when a task needs reasoning-gym and that is not installed.
            InputError: when the model reads no text, or has no chat template where one is asked for.
        """
        from outlay.sources.prompts import tokenizer_of

        return _Problems(self, context, tokenizer_of(context, "prompts/reasoning"))


class _Problems:
    """Question p is of cell (task, level) number p modulo their count, in an order shuffled for each round of all cells, unless cells are picked."""

    def __init__(self, spec: ReasoningPrompts, context: Context, tokenizer: Any) -> None:
        self._spec, self._context, self._tokenizer = spec, context, tokenizer
        self._cells = [(task, level) for task, levels in spec.tasks.items() for level in levels]
        #: the draw that each cell's next question is looked for from
        self._next = [0] * len(self._cells)
        self._place = 0
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._streams: list[Iterator[Problem]] = [self._stream(cell, 0) for cell in range(len(self._cells))]
        #: problems that were read from each cell's stream and not yet used, with their prompts
        self._ahead: list[deque[tuple[Problem, str]]] = [deque() for _ in self._cells]
        self.draw(1)  # what is missing is found here

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """One arm a task and level; its place is (number of the task, level), each scaled to [0, 1]."""
        names, found = list(self._spec.tasks), []
        for task, level in self._cells:
            levels = self._spec.tasks[task]
            point = (_scaled(names.index(task), 0, len(names) - 1), _scaled(level, min(levels), max(levels)))
            found.append(Arm(f"{task}/{level}", f"{task}/{level}", float(level), None, point))
        return tuple(found)

    def draw(self, count: int) -> list[Question]:
        """Return the next ``count`` questions."""
        return self.pick([self._cell(place) for place in range(self._place, self._place + count)])

    def advance(self, count: int) -> None:
        """Move the cursor past ``count`` questions."""
        self.use([self._cell(place) for place in range(self._place, self._place + count)])

    def pick(self, arms: Sequence[int]) -> list[Question]:
        """Return the next questions of these cells."""
        used, found = Counter[int](), []
        for i, cell in enumerate(arms):
            ahead = self._ahead[cell]
            if used[cell] == len(ahead):
                self._read(cell)
            found.append(self._question(*ahead[used[cell]], self._place + i))
            used[cell] += 1
        return found

    def use(self, arms: Sequence[int]) -> None:
        """Move the cursors past these cells' questions."""
        for cell in arms:
            if not self._ahead[cell]:
                self._read(cell)
            self._next[cell] = self._ahead[cell].popleft()[0].index + 1
        self._place += len(arms)

    def state_dict(self) -> dict[str, Any]:
        """Return the cursor: how many questions have been used, and from which draw each cell goes on."""
        return {"place": self._place, "next": list(self._next)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved cursor."""
        self._place, self._next = int(state["place"]), [int(index) for index in state["next"]]
        self._ahead = [deque() for _ in self._cells]
        self._streams = [self._stream(cell, start) for cell, start in enumerate(self._next)]

    def _stream(self, cell: int, start: int) -> Iterator[Problem]:
        from outlay.tasks.reasoning import stream

        (task, level), seed = self._cells[cell], rng.derive(self._context.seed, "prompts/reasoning")
        return stream(task, level, split="train", seed=seed, style=self._spec.style, start=start)

    def _cell(self, place: int) -> int:
        turn, at = divmod(place, len(self._cells))
        if turn not in self._orders:
            self._orders = {turn: rng.numpy_generator(self._context.seed, "prompts/reasoning/order", turn).permutation(len(self._cells))}
        return int(self._orders[turn][at])

    def _read(self, cell: int) -> None:
        from outlay.sources.prompts import as_prompts

        problem = next(self._streams[cell])
        self._ahead[cell].append((problem, as_prompts([problem.prompt], self._tokenizer, self._spec.chat)[0]))

    def _question(self, problem: Problem, text: str, place: int) -> Question:
        asked = {"task": problem.task, "level": problem.level, "prompt": problem.prompt, "index": problem.index}
        return Question(text, problem.answer, place, f"{problem.task}/{problem.level}", {"problem": asked})


def _scaled(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.0
