"""Reasoning: verifiable problems with their answers, for supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from outlay import rng
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.sources.base import Shuffled, Stream
from outlay.sources.pairs import Pairs
from outlay.sources.prompts import as_prompts, check_tasks, draw_problems, tokenizer_of


@dataclass(frozen=True)
class Reasoning:
    """Problems of chosen tasks and levels with right answers; only the answer and the end mark after it are labelled.

    Each problem read costs one of the budget's ``labels``, once, however many epochs it is read.

    No held-out question is ever trained on: which side a question belongs to follows from what it asks, whatever the seed.

    Args:
        tasks: task -> levels, such as ``{gcd: [1, 2], reverse: [3]}``; level 1 is the easiest.
        examples: how many training problems at most for each task and level, > 0. A level with fewer different prompts gives
            all but its rarest.
        held_out_examples: the same for the held-out side, > 0.
        style: ``short`` for operands only (``g49,28=``), ``english`` for the full sentence.
        chat: put the prompt into the tokenizer's chat template as the user's message.
        longest: longest pair in tokens, end mark included, > 0; a longer one is refused.
    """

    title: ClassVar[str] = "Reasoning problems"
    paper: ClassVar[Paper | None] = None
    units: ClassVar[tuple[str, ...]] = ("examples", "tokens", "labels")

    tasks: dict[str, tuple[int, ...]]
    examples: int = 1000
    held_out_examples: int = 100
    style: Literal["short", "english"] = "short"
    chat: bool = False
    longest: int = 256

    def __post_init__(self) -> None:
        check_tasks(self.tasks)
        if self.examples <= 0 or self.held_out_examples <= 0:
            raise ValueError(f"examples and held_out_examples must be > 0, found {self.examples} and {self.held_out_examples}")
        if self.longest <= 0:
            raise ValueError(f"longest must be > 0 tokens, found {self.longest}")

    def open(self, context: Context) -> Stream:
        """Return the training problems in a shuffled order; they are drawn from the stream (seed, "sources/reasoning").

        Raises:
            MissingExtra: when a task needs reasoning-gym and that is not installed.
            InputError: when a pair is too long or the model reads no text.
        """
        pairs = self._pairs(context, "train", self.examples)
        return Shuffled(pairs, context, labels=len(pairs))

    def held_out(self, context: Context) -> Pairs:
        """Return held-out problems."""
        kept = self._pairs(context, "held_out", self.held_out_examples)
        if not len(kept):
            raise InputError(f"the spaces of {self.tasks} are so small that no question is held out; take higher levels")
        return kept

    def _pairs(self, context: Context, split: Literal["train", "held_out"], most: int) -> Pairs:
        tokenizer = tokenizer_of(context, "sources/reasoning")
        problems = draw_problems(self.tasks, split, most, rng.derive(context.seed, "sources/reasoning"), self.style)
        prompts = as_prompts([problem.prompt for problem in problems], tokenizer, self.chat)
        answers = [problem.answer for problem in problems]
        return Pairs(list(zip(prompts, answers, strict=True)), tokenizer, self.longest)
