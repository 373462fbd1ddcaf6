"""Sampled match: several sampled answers to each held-out reasoning problem, counted right or wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from outlay import rng
from outlay.catalog import Paper
from outlay.context import Context
from outlay.evaluations.base import ChargeBatch
from outlay.evaluations.exact_match import is_right, questions_of
from outlay.rollout.base import Completion, Engine, Request, Sampling, Work
from outlay.rollout.local import Local
from outlay.schedules.base import require
from outlay.sources.base import Source
from outlay.sources.prompts import check_tasks, tokenizer_of

if TYPE_CHECKING:
    from outlay.tasks.reasoning import Problem


@dataclass(frozen=True)
class SampledMatch:
    """Share of sampled answers to held-out problems that are right, and the chance that one of k is: the same problems as exact_match asks.

    An answer is right when its text up to the end mark is a right answer and nothing else; one that does not end in time is wrong. Of a problem
    with c right ones among n samples, pass@k is estimated without bias by

        1 - C(n - c, k) / C(n, k)

    Metrics, each a mean over problems and then over (task, level): ``sampled_match/<task>/<level>`` and ``sampled_match``, which are pass@1, and
    ``pass_at_<k>``.

    Args:
        tasks: task -> levels, such as ``{gcd: [1, 2], reverse: [3]}``; level 1 is the easiest.
        problems: how many at most for each task and level, > 0. A level with fewer different held-out prompts gives all but its rarest.
        samples: n, answers to each, > 0.
        k: numbers for which pass@k is estimated, each in 1 to ``samples``; empty for ``samples`` alone.
        temperature: that answers are sampled at, > 0.
        new_tokens: longest answer in tokens, end mark included, > 0; None for what the longest right answer takes.
        engine: who writes the answers.
        style: ``short`` for operands only (``g49,28=``), ``english`` for the full sentence.
        chat: put the prompt into the tokenizer's chat template as the user's message.
    """

    title: ClassVar[str] = "Sampled match and pass@k"
    paper: ClassVar[Paper | None] = Paper("2107.03374", "Evaluating Large Language Models Trained on Code", 2021)

    tasks: dict[str, tuple[int, ...]]
    problems: int = 100
    samples: int = 8
    k: tuple[int, ...] = ()
    temperature: float = 1.0
    new_tokens: int | None = None
    engine: Engine = field(default_factory=Local)
    style: Literal["short", "english"] = "short"
    chat: bool = False

    def __post_init__(self) -> None:
        check_tasks(self.tasks)
        require(self.problems > 0 and self.samples > 0, f"problems and samples must be > 0, found {self.problems} and {self.samples}")
        require(all(1 <= k <= self.samples for k in self.k), f"each k must lie in 1 to samples = {self.samples}, found {list(self.k)}")
        require(self.temperature > 0, f"temperature must be > 0 (evaluations/exact_match asks at 0), found {self.temperature}")
        require(self.new_tokens is None or self.new_tokens > 0, f"new_tokens must be > 0 or None, found {self.new_tokens}")
        Sampling(self.temperature)

    def open(self, context: Context, source: Source) -> _Sitting:
        """Return the problems, those of exact_match; answers read the stream (seed, "evaluations/sampled_match"). ``source`` does not enter.

        Raises:
            InputError: when the model reads no text, or ``new_tokens`` is too small for a right answer.
            MissingExtra: when a task needs reasoning-gym and that is not installed.
        """
        tokenizer = tokenizer_of(context, "evaluations/sampled_match")
        drawn, prompts, needed = questions_of(self.tasks, self.problems, self.new_tokens, self.style, self.chat, context.seed, tokenizer)
        return _Sitting(self, drawn, [tuple(prompt) for prompt in prompts], self.new_tokens or needed, tokenizer, context)


def pass_at(k: int, right: int, samples: int) -> float:
    """Return the unbiased estimate of the chance that one of k answers is right, given how many of ``samples`` were."""
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


@dataclass(frozen=True)
class _Sitting:
    exam: SampledMatch
    problems: list[Problem]
    prompts: list[tuple[int, ...]]
    new_tokens: int
    tokenizer: Any
    context: Context

    def bound(self) -> dict[str, float]:
        rows = len(self.problems)
        answers = rows * self.exam.samples
        # the last token of an answer is never read back
        tokens = sum(map(len, self.prompts)) + answers * (self.new_tokens - 1)
        new_tokens = float(answers * self.new_tokens)
        return {"examples": float(rows), "tokens": float(tokens), "positions": float(rows * -(-tokens // rows)), "new_tokens": new_tokens}

    def run(self, model: nn.Module, charge: ChargeBatch) -> dict[str, float]:
        seed = rng.derive(self.context.seed, "evaluations/sampled_match")
        requests = [Request(prompt, self.exam.samples, self.new_tokens, place) for place, prompt in enumerate(self.prompts)]
        done: list[Work] = []

        def leave(work: Work) -> bool:
            if work.when != "ahead":
                done.append(work)
            return True

        written = self.exam.engine.open(model, self.context).generate(requests, Sampling(self.exam.temperature), seed=seed, leave=leave)
        self._charge(done, charge)
        right = [0] * len(self.problems)
        for one in written:
            right[one.request] += is_right(self.problems[one.request], self._text(one))
        return self._metrics(right)

    def _metrics(self, right: Sequence[int]) -> dict[str, float]:
        cells: dict[str, list[int]] = {}
        for problem, count in zip(self.problems, right, strict=True):
            cells.setdefault(f"sampled_match/{problem.task}/{problem.level}", []).append(count)
        found = {name: sum(counts) / (len(counts) * self.exam.samples) for name, counts in sorted(cells.items())}
        found["sampled_match"] = sum(found.values()) / len(found)
        for k in self.exam.k or (self.exam.samples,):
            means = [sum(pass_at(k, count, self.exam.samples) for count in counts) / len(counts) for counts in cells.values()]
            found[f"pass_at_{k}"] = sum(means) / len(means)
        return found

    def _charge(self, done: Sequence[Work], charge: ChargeBatch) -> None:
        """Charge what was computed, laid out in a row a problem: of the positions, only the last column's may be padding."""
        rows, read = len(self.problems), sum(work.prompt_tokens + work.read_tokens for work in done)
        mask = torch.zeros(rows * -(-read // rows), dtype=torch.long)
        mask[:read] = 1
        mask = mask.reshape(rows, -1)
        charge({"input_ids": torch.zeros_like(mask), "attention_mask": mask}, float(sum(work.new_tokens for work in done)))

    def _text(self, written: Completion) -> str | None:
        """Return an answer's text; None where it did not end. Special tokens stay visible: an answer with one inside is not right."""
        if written.ended != "end":
            return None
        text: str = self.tokenizer.decode(list(written.tokens[:-1]), clean_up_tokenization_spaces=False)
        return text
