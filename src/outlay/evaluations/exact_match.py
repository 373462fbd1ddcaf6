"""Exact match: greedy answers to held-out reasoning problems, counted right or wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from outlay import rng
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, MissingExtra
from outlay.evaluations.base import ChargeBatch
from outlay.sources.base import Source
from outlay.sources.prompts import as_prompts, check_tasks, draw_problems, tokenizer_of

if TYPE_CHECKING:
    from outlay.tasks.reasoning import Problem


@dataclass(frozen=True)
class ExactMatch:
    """Share of held-out problems whose greedy answer is right: the text up to the end mark must be a right answer, and nothing else.

    A reply that does not end within ``new_tokens`` is wrong. Metrics: ``exact_match/<task>/<level>``, and their mean ``exact_match``.

    Args:
        tasks: task -> levels, such as ``{gcd: [1, 2], reverse: [3]}``; level 1 is the easiest.
        problems: how many at most for each task and level, > 0. A level with fewer different held-out prompts gives all but its rarest.
        new_tokens: longest reply in tokens, end mark included, > 0; None for what the longest right answer takes.
        batch_size: problems answered side by side, > 0.
        style: ``short`` for operands only (``g49,28=``), ``english`` for the full sentence.
        chat: put the prompt into the tokenizer's chat template as the user's message.
    """

    title: ClassVar[str] = "Exact match"
    paper: ClassVar[Paper | None] = None

    tasks: dict[str, tuple[int, ...]]
    problems: int = 100
    new_tokens: int | None = None
    batch_size: int = 128
    style: Literal["short", "english"] = "short"
    chat: bool = False

    def __post_init__(self) -> None:
        check_tasks(self.tasks)
        if self.problems <= 0 or self.batch_size <= 0:
            raise ValueError(f"problems and batch_size must be > 0, found {self.problems} and {self.batch_size}")
        if self.new_tokens is not None and self.new_tokens <= 0:
            raise ValueError(f"new_tokens must be > 0 or None, found {self.new_tokens}")

    def open(self, context: Context, source: Source) -> _Sitting:
        """Return the problems, drawn from the stream (seed, "evaluations/exact_match"); ``source`` does not enter.

        Raises:
            InputError: when the model reads no text, or ``new_tokens`` is too small for a right answer.
            MissingExtra: when a task needs reasoning-gym and that is not installed.
        """
        tokenizer = tokenizer_of(context, "evaluations/exact_match")
        drawn, encoded, needed = questions_of(self.tasks, self.problems, self.new_tokens, self.style, self.chat, context.seed, tokenizer)
        # neighbours in length waste little on padding
        order = sorted(range(len(drawn)), key=lambda i: len(encoded[i]))
        cuts = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        questions = [_Questions.padded([drawn[i] for i in cut], [encoded[i] for i in cut], tokenizer.pad_token_id) for cut in cuts]
        return _Sitting(questions, self.new_tokens or needed, tokenizer, context)


@dataclass(frozen=True)
class _Questions:
    """Problems with their prompts, padded on the left: ``ids`` and ``mask`` are (examples, tokens)."""

    problems: list[Problem]
    ids: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def padded(cls, problems: list[Problem], prompts: Sequence[Sequence[int]], padding: int) -> _Questions:
        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), width), padding, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            mask[i, width - len(prompt) :] = 1
        return cls(problems, ids, mask)


@dataclass(frozen=True)
class _Sitting:
    questions: list[_Questions]
    new_tokens: int
    tokenizer: Any
    context: Context

    def bound(self) -> dict[str, float]:
        rows = float(sum(len(part.problems) for part in self.questions))
        # the last token of a reply is never read back
        return {
            "examples": rows,
            "tokens": sum(float(part.mask.sum()) for part in self.questions) + rows * (self.new_tokens - 1),
            "positions": sum(float(part.ids.numel()) for part in self.questions) + rows * (self.new_tokens - 1),
            "new_tokens": rows * self.new_tokens,
        }

    def run(self, model: nn.Module, charge: ChargeBatch) -> dict[str, float]:
        self._check(model)
        right: dict[tuple[str, int], list[bool]] = {}
        for part in self.questions:
            replies = self._answer(model, part, charge)
            for problem, reply in zip(part.problems, replies, strict=True):
                right.setdefault((problem.task, problem.level), []).append(is_right(problem, reply))
        shares = {f"exact_match/{task}/{level}": sum(marks) / len(marks) for (task, level), marks in sorted(right.items())}
        return {**shares, "exact_match": sum(shares.values()) / len(shares)}

    def _check(self, model: nn.Module) -> None:
        if not callable(getattr(model, "generate", None)):
            rule = "evaluations/exact_match needs a model that generates text, such as models/transformer or models/pretrained"
            raise InputError(f"{type(model).__name__} has no method generate; {rule}")
        longest = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        needed = max(part.ids.shape[1] for part in self.questions) + self.new_tokens - 1  # the last one is not read
        if longest is not None and needed > longest:
            raise InputError(f"a prompt with its reply takes {needed} positions and the model has {longest}; raise its context or ask less")

    def _answer(self, model: nn.Module, part: _Questions, charge: ChargeBatch) -> list[str | None]:
        """Generate the replies of a batch; None for one that did not end."""
        ids, mask = part.ids.to(self.context.device), part.mask.to(self.context.device)
        with _greedy(model, self.tokenizer, self.new_tokens) as settings:
            whole: torch.Tensor = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)  # type: ignore[operator]
        replies = whole[:, ids.shape[1] :].cpu()
        ended = (replies == self.tokenizer.eos_token_id).cumsum(1)
        live = (ended == 0) | ((ended == 1) & (replies == self.tokenizer.eos_token_id))
        read = torch.cat([part.mask, live.long()], dim=1)[:, :-1]
        charge({"input_ids": whole[:, :-1], "attention_mask": read.to(whole.device)}, float(live.sum()))
        lengths = [int(row.sum()) - 1 if bool(done[-1]) else None for row, done in zip(live, ended, strict=True)]
        # special tokens stay visible: an answer with one inside is not right
        return [
            None if length is None else self.tokenizer.decode(row[:length].tolist(), clean_up_tokenization_spaces=False)
            for row, length in zip(replies, lengths, strict=True)
        ]


def questions_of(
    tasks: Mapping[str, Sequence[int]],
    most: int,
    new_tokens: int | None,
    style: Literal["short", "english"],
    chat: bool,
    seed: int,
    tokenizer: Any,
) -> tuple[list[Problem], list[list[int]], int]:
    """Return held-out problems, their prompts' tokens, and how many tokens the longest right answer takes, end mark included.

    They are drawn from the stream (seed, "evaluations/exact_match"), so that exams of the same fields ask the same.

    Raises:
        InputError: when nothing is held out, or ``new_tokens`` is too small for a right answer.
        MissingExtra: when a task needs reasoning-gym and that is not installed.
    """
    drawn = draw_problems(tasks, "held_out", most, rng.derive(seed, "evaluations/exact_match"), style)
    if not drawn:
        raise InputError(f"the spaces of {tasks} are so small that no question is held out; take higher levels")
    prompts = as_prompts([problem.prompt for problem in drawn], tokenizer, chat)
    encoded = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answers = tokenizer([problem.answer for problem in drawn], add_special_tokens=False)["input_ids"]
    longest = max(range(len(drawn)), key=lambda i: len(answers[i]))
    needed = len(answers[longest]) + 1
    if new_tokens is not None and new_tokens < needed:
        rule = f"needs {needed} tokens with its end mark, but new_tokens is {new_tokens}; raise it or leave it out"
        raise InputError(f"the answer {drawn[longest].answer!r} of task {drawn[longest].task!r} {rule}")
    return drawn, encoded, needed


def is_right(problem: Problem, reply: str | None) -> bool:
    """Say whether a reply that ended is a right answer; None stands for one that did not end."""
    from outlay.tasks.reasoning import score

    return reply is not None and score(problem, reply)


@contextmanager
def _greedy(model: nn.Module, tokenizer: Any, new_tokens: int) -> Iterator[Any]:
    """Settings that take the likeliest token. What they leave open would come from the model's own, so those are set aside meanwhile."""
    try:
        from transformers import GenerationConfig
    except ImportError:
        raise MissingExtra("transformers", "hf") from None
    own = [(module, vars(module)["generation_config"]) for module in model.modules() if "generation_config" in vars(module)]
    marks = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    for module, _ in own:
        module.generation_config = GenerationConfig(**marks)
    try:
        yield GenerationConfig(max_new_tokens=new_tokens, do_sample=False, num_beams=1, use_cache=True, **marks)
    finally:
        for module, settings in own:
            module.generation_config = settings
