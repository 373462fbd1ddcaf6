"""Prompts: what sources and exams that ask questions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from outlay.context import Context
from outlay.errors import InputError, nearest

if TYPE_CHECKING:
    from outlay.tasks.reasoning import Problem, Split, Style


def tokenizer_of(context: Context, who: str) -> Any:
    """Return the context's tokenizer.

    Raises:
        InputError: when the model has none, or it has no end mark to learn; ``who`` says what needs it.
    """
    tokenizer = context.tokenizer
    if tokenizer is None:
        raise InputError(f"{who} needs a tokenizer, but the model reads no text; use a language model such as models/transformer")
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise InputError(f"{who} needs a tokenizer with an end mark and padding (eos_token, pad_token); this one lacks them")
    return tokenizer


def as_prompts(texts: Sequence[str], tokenizer: Any, chat: bool) -> list[str]:
    """Return the prompts as the model is to see them: as they are, or as the user's message in the tokenizer's chat template.

    Raises:
        InputError: when a chat is asked for and the tokenizer has no chat template.
    """
    if not chat:
        return list(texts)
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("chat: true needs a tokenizer with a chat template, and this one has none; use chat: false or a chat model")
    turns = [[{"role": "user", "content": text}] for text in texts]
    prompts: list[str] = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) if turns else []
    return prompts


def check_tasks(tasks: Mapping[str, Sequence[int]]) -> None:
    """Check names and levels of reasoning tasks without making a problem.

    Raises:
        ValueError: naming what is unknown and the nearest or accepted ones.
    """
    from outlay.tasks.reasoning import TASKS

    if not tasks:
        raise ValueError(f"tasks must name at least one task with its levels, such as {{gcd: [1, 2]}}; accepted: {', '.join(TASKS)}")
    for task, levels in tasks.items():
        if task not in TASKS:
            raise ValueError(f"there is no reasoning task {task!r}{nearest(task, TASKS)}")
        highest = len(TASKS[task].levels)
        if not levels or len(set(levels)) != len(levels) or not all(1 <= level <= highest for level in levels):
            raise ValueError(f"levels of {task!r} are different whole numbers from 1 to {highest}, at least one; found {list(levels)}")


def draw_problems(tasks: Mapping[str, Sequence[int]], split: Split, most: int, seed: int, style: Style) -> list[Problem]:
    """Return problems with distinct prompts: ``most`` for each task and level, or all but the rarest where a level has fewer.

    A level is given up once its prompts have come up four times on average, and a thousand draws more: of equally likely prompts 98 % have
    then been seen, and of a few hundred all. The few that are missing would cost many times the draws of all others.

    Args:
        tasks: task -> levels.
        split: ``train`` or ``held_out``.
        most: upper bound for each task and level, > 0.
        seed: root of the draws.
        style: ``short`` or ``english``.

    Raises:
        MissingExtra: when a task needs reasoning-gym and that is not installed.
    """
    from outlay.tasks.reasoning import stream

    problems: list[Problem] = []
    for task, levels in tasks.items():
        for level in levels:
            found: dict[str, Problem] = {}
            for drawn, problem in enumerate(stream(task, level, split=split, seed=seed, style=style)):
                found.setdefault(problem.prompt, problem)
                if len(found) == most or drawn >= 4 * len(found) + 1000:
                    break
            problems.extend(found.values())
    return problems
