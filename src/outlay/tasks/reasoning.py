"""Verifiable reasoning problems with difficulty levels, made by reasoning-gym, in prompts short enough for a tiny model.

A problem belongs to the training or to the held-out side by a hash of what it asks, whatever the seed, level, style or provider, so
that no amount of fresh training prompts ever meets a held-out one. Operands that commute are sorted before hashing: ``g4,6=`` and
``g6,4=`` are one question.

Tasks with a built-in generator (sum, gcd, reverse) also work without reasoning-gym; ``ReasoningTask.provider`` says which one makes
the problems. The two providers draw different problems: sums and divisors from the same spaces, words from lists of their own.
"""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from outlay import rng
from outlay.errors import InputError, MissingExtra, nearest
from outlay.tasks import _questions
from outlay.tasks._questions import Entry, Stripped

Split = Literal["train", "held_out"]
Style = Literal["short", "english"]
HELD_OUT_ONE_IN = 8
"""One question in this many is held out."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its verifiable answer.

    Args:
        task: key in ``TASKS``.
        level: difficulty, 1 is the easiest.
        prompt: what the model reads.
        answer: a right answer; ``score`` knows where others are right too.
        index: number of the draw it came from, so (task, level, split, style, seed, index) finds it again.
    """

    task: str
    level: int
    prompt: str
    answer: str
    index: int


@dataclass(frozen=True, kw_only=True)
class ReasoningTask:
    """A family of problems.

    Args:
        name: key in ``TASKS``.
        title: one line on what is asked, with a short-style example.
        source: name of the reasoning-gym dataset.
        levels: that dataset's config fields for each level, easiest first; level n is ``levels[n - 1]``.
        strip: turns an entry into its short form.
        built_in: makes one entry from a level's fields without reasoning-gym; None where there is no such generator.
    """

    name: str
    title: str
    source: str
    levels: tuple[Mapping[str, Any], ...]
    strip: Callable[[Entry], Stripped] = field(repr=False)
    built_in: Callable[[Mapping[str, Any], random.Random], Entry] | None = field(default=None, repr=False)

    @property
    def provider(self) -> Literal["reasoning-gym", "built-in", "missing"]:
        """Who makes this task's problems here; ``missing`` when it needs reasoning-gym and that is not installed."""
        if _has_reasoning_gym():
            return "reasoning-gym"
        return "built-in" if self.built_in else "missing"


def stream(task: str, level: int, *, split: Split, seed: int, style: Style = "short", start: int = 0) -> Iterator[Problem]:
    """Return an endless, reproducible stream of problems of one side; prompts repeat as small spaces run out.

    Args:
        task: key in ``TASKS``.
        level: 1 to the number of the task's levels.
        split: ``train`` or ``held_out``.
        seed: root seed of the draws; it never moves a question to the other side.
        style: ``short`` for operands only (``g49,28=``), ``english`` for the full sentence, for pretrained chat models.
        start: number of the first draw; one more than a problem's ``index`` goes on behind it.

    Raises:
        InputError: unknown task, level, split or style.
        MissingExtra: the task needs reasoning-gym, which is not installed.
    """
    chosen = _checked(task, level, split, style)
    return _draws(chosen, level, split, style, rng.derive(seed, f"tasks/reasoning/{task}/{level}"), start)


def problems(task: str, level: int, *, split: Split, count: int, seed: int, style: Style = "short") -> list[Problem]:
    """Return ``count`` problems with distinct prompts: a pure function of its arguments, and a longer list begins with the shorter.

    Args:
        task: key in ``TASKS``.
        level: 1 to the number of the task's levels.
        split: ``train`` or ``held_out``.
        count: how many, at least 1.
        seed: root seed of the draws.
        style: ``short`` or ``english``.

    Raises:
        InputError: bad arguments, or fewer distinct prompts exist than asked for; the message says how many.
        MissingExtra: the task needs reasoning-gym, which is not installed.
    """
    if count < 1:
        raise InputError(f"count must be at least 1, found {count}")
    found: dict[str, Problem] = {}
    last_new = 0
    draws_each = HELD_OUT_ONE_IN if split == "held_out" else HELD_OUT_ONE_IN / (HELD_OUT_ONE_IN - 1)
    for problem in stream(task, level, split=split, seed=seed, style=style):
        if problem.prompt not in found:
            found[problem.prompt], last_new = problem, problem.index
        if len(found) == count:
            return list(found.values())
        # Were one prompt of a uniform space still unseen, this many draws would miss it with probability below e^-12.
        if problem.index - last_new > 12 * draws_each * (len(found) + 25):
            break
    raise InputError(
        f"task {task!r} at level {level} has only {len(found)} distinct {split} prompts, asked for {count}; "
        f"ask for at most {len(found)} or take a higher level (it has {len(TASKS[task].levels)})"
    )


def score(problem: Problem, text: str) -> bool:
    """Say whether ``text``, stripped of blanks at its ends, is a right answer.

    It must equal the answer, except where one answer can be written in several ways: prime factors may come in any order, and sorted
    numbers may be spaced, quoted and bracketed as the writer likes. Finding the answer inside a longer reply is the reward's job.
    """
    given = text.strip()
    if given == problem.answer:
        return True
    read = _SEVERAL_WAYS.get(problem.task)
    if read is None:
        return False
    value = read(given)
    return value is not None and value == read(problem.answer)


def is_held_out(task: str, key: str) -> bool:
    """Say whether the question with this key (``Stripped.key``) is held out: one residue class of its hash, and nothing else."""
    return rng.derive(0, f"tasks/reasoning/held_out/{task}/{key}") % HELD_OUT_ONE_IN == 0


def _has_reasoning_gym() -> bool:
    return importlib.util.find_spec("reasoning_gym") is not None


def _checked(task: str, level: int, split: str, style: str) -> ReasoningTask:
    if task not in TASKS:
        raise InputError(f"no reasoning task called {task!r}{nearest(task, TASKS)}")
    chosen = TASKS[task]
    if not 1 <= level <= len(chosen.levels):
        raise InputError(f"task {task!r} has levels 1 to {len(chosen.levels)}, found {level}")
    if split not in ("train", "held_out"):
        raise InputError(f"split must be 'train' or 'held_out', found {split!r}")
    if style not in ("short", "english"):
        raise InputError(f"style must be 'short' or 'english', found {style!r}")
    if chosen.provider == "missing":
        raise MissingExtra("reasoning-gym", "rl")
    return chosen


def _draws(task: ReasoningTask, level: int, split: Split, style: Style, seed: int, start: int) -> Iterator[Problem]:
    """Both sides come from the same draws, numbered alike; each draw belongs to exactly one of them."""
    for index, entry in enumerate(_entries(task, level, seed, start), start):
        short = task.strip(entry)
        if is_held_out(task.name, short.key) != (split == "held_out"):
            continue
        prompt, answer = (short.prompt, short.answer) if style == "short" else (entry["question"], entry["answer"])
        yield Problem(task.name, level, prompt, answer, index)


def _entries(task: ReasoningTask, level: int, seed: int, start: int) -> Iterator[Entry]:
    fields, index = task.levels[level - 1], start
    if task.provider == "built-in" and task.built_in is not None:
        while True:
            yield task.built_in(fields, random.Random(rng.derive(seed, "built-in", index)))
            index += 1
    import reasoning_gym

    # Its items are functions of seed + index; a 63-bit seed keeps the streams of different seeds apart.
    dataset = reasoning_gym.create_dataset(task.source, size=2**40, seed=seed, **fields)
    while True:
        yield dataset[index]
        index += 1


# --- answers that can be written in several ways -----------------------------------------------------------------------------------


def _factors(text: str) -> list[str] | None:
    parts = [part.strip() for part in re.split("[*×]", text)]
    return sorted(parts) if all(part.isascii() and part.isdigit() for part in parts) else None


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(part.strip(" '\"")) for part in text.removeprefix("[").removesuffix("]").split(",")]
    except ValueError:
        return None


_SEVERAL_WAYS: dict[str, Callable[[str], list[str] | list[float] | None]] = {"factor": _factors, "sort": _numbers}


_PAIR = {"min_numbers": 2, "max_numbers": 2, "min_value": 1}

TASKS: dict[str, ReasoningTask] = {
    task.name: task
    for task in (
        ReasoningTask(
            name="sum",
            title="add and subtract: +53-28= 25",
            source="chain_sum",
            strip=_questions.strip_sum,
            built_in=_questions.make_sum,
            levels=tuple(
                {"min_terms": low, "max_terms": high, "min_digits": digits, "max_digits": most}
                for low, high, digits, most in ((2, 2, 1, 1), (2, 2, 1, 2), (2, 2, 2, 3), (2, 4, 2, 3))
            ),
        ),
        ReasoningTask(
            name="product",
            title="multiply: *7*12= 84",
            source="products",
            strip=_questions.strip_product,
            levels=tuple({"min_terms": 2, "max_terms": 2, "min_digits": low, "max_digits": high} for low, high in ((1, 1), (1, 2), (2, 3))),
        ),
        ReasoningTask(
            name="gcd",
            title="greatest common divisor: g49,28= 7",
            source="gcd",
            strip=_questions.strip_gcd,
            built_in=_questions.make_gcd,
            levels=tuple(_PAIR | {"max_value": most} for most in (20, 60, 200, 1000)),
        ),
        ReasoningTask(
            name="lcm",
            title="least common multiple: l4,6= 12",
            source="lcm",
            strip=_questions.strip_lcm,
            levels=tuple(_PAIR | {"max_value": most} for most in (10, 20, 40, 100)),
        ),
        ReasoningTask(
            name="reverse",
            title="spell a word backward: rneon= noen",
            source="spell_backward",
            strip=_questions.strip_reverse,
            built_in=_questions.make_reverse,
            levels=tuple({"min_word_len": low, "max_word_len": high} for low, high in ((3, 4), (3, 5), (3, 7), (6, 10))),
        ),
        ReasoningTask(
            name="sort",
            title="order numbers, rising < or falling >: <7,3,5= 3,5,7",
            source="number_sorting",
            strip=_questions.strip_sort,
            levels=tuple(
                {"min_numbers": low, "max_numbers": high, "min_value": least, "max_value": most, "min_decimals": 0, "max_decimals": 0}
                for low, high, least, most in ((2, 3, 0, 9), (3, 4, 0, 99), (4, 6, -99, 99))
            ),
        ),
        ReasoningTask(
            name="count",
            title="count a letter in a text: co,good morning= 3",
            source="letter_counting",
            strip=_questions.strip_count,
            levels=tuple({"min_words": low, "max_words": high} for low, high in ((1, 2), (2, 3), (4, 7))),
        ),
        ReasoningTask(
            name="base",
            title="write a number in another base: b101,2,10= 5",
            source="base_conversion",
            strip=_questions.strip_base,
            levels=tuple(
                # 0 is left out: reasoning-gym writes it as an empty string
                {"min_base": 2, "max_base": base, "min_value": 1, "max_value": most}
                for base, most in ((4, 31), (10, 255), (16, 1000))
            ),
        ),
        ReasoningTask(
            name="factor",
            title="prime factors: p84= 2*2*3*7",
            source="prime_factorization",
            strip=_questions.strip_factor,
            levels=tuple({"min_value": 2, "max_value": most} for most in (100, 1000, 10000)),
        ),
        ReasoningTask(
            name="fraction",
            title="lowest terms: f12/18= 2/3",
            source="fraction_simplification",
            strip=_questions.strip_fraction,
            levels=tuple(
                {"min_value": 1, "max_value": most, "min_factor": 2, "max_factor": factor, "styles": ("plain",)}
                for most, factor in ((9, 5), (30, 12), (100, 30))
            ),
        ),
        ReasoningTask(
            name="bits",
            title="count the ones of a binary number: n13= 3",
            source="count_bits",
            strip=_questions.strip_bits,
            levels=tuple({"min_n": 1, "max_n": most} for most in (255, 4095, 65535)),
        ),
    )
}
