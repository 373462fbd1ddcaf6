"""Answers: a model answers questions, judges say what the answers are worth, and those worth keeping are written to a file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from outlay.budget import Budget
from outlay.catalog import describe
from outlay.context import Context
from outlay.errors import InputError
from outlay.meter import SETUP, Meter
from outlay.models.base import ModelSpec
from outlay.planning.flops import CountFlops
from outlay.planning.text import size
from outlay.prompts.base import PromptSource, Question, Questions
from outlay.reporting.terminal import Display, Quiet
from outlay.rewards.base import Reward
from outlay.rewards.combining import combine
from outlay.rewards.panel import Panel
from outlay.rng import derive
from outlay.rollout.base import Completion, Engine, Request, Sampling, Work
from outlay.rollout.local import Local
from outlay.schedules.base import require
from outlay.sources.answering import answer_of, encode
from outlay.sources.prompts import tokenizer_of
from outlay.train.assembly import versions
from outlay.train.journal import NAME as JOURNAL
from outlay.train.journal import Journal, how_ended, read_journal
from outlay.train.pace import Tail, ending_unit, flow_limits
from outlay.train.result import SPENT, STOPPED, Result
from outlay.train.signals import Signals

#: the file inside of a leg's folder
FILE = "answers.jsonl"
#: what answering spends
UNITS = ("seconds", "usd", "flops", "tokens", "new_tokens", "rollouts")
#: ended_by when every question has been asked
ASKED = "questions"
#: seconds kept back for the result, and the largest share of the limit that this may be
CLOSING_SECONDS, CLOSING_SHARE = 0.05, 0.01


@dataclass(frozen=True)
class Answers:
    """Answers of a model to prompts, judged, as rows of a .jsonl file that the sources of demonstrations and preferences read.

    What ``keep`` leaves of a question's answers, and the columns of a row:

        all         every answer                                                          prompt, answer, reward
        right       distinct answers that every reward passed: the worthiest first, the
                    shorter of equals first, at most ``per_question``                     prompt, answer, reward
        best        the worthiest answer, right or not                                    prompt, answer, reward
        pairs       the worthiest and the least worthy answer, where they differ          prompt, chosen, rejected
        hard_pairs  the worthiest right answer, and the worthiest wrong one               prompt, chosen, rejected
        groups      all together, where not all are worth the same                        prompt, answers, rewards

    An answer's reward is the sum of its rewards' values, and null where one of them could not judge it; such an answer is in ``all`` and ``groups``
    alone. An answer that did not end by itself is never a demonstration, since its end would be taught: it can be rejected, or part of a group.
    Prompts are written as the model sees them. The same seed asks the same questions and gets the same answers, whatever is cut or killed in
    between.

    Args:
        model: who answers.
        prompts: where questions come from.
        questions: how many are asked, > 0; fewer where the budget ends before.
        rewards: name -> reward; may be empty for ``all``.
        samples: answers to a question, > 0.
        new_tokens: longest answer in tokens, end mark included, > 0.
        temperature: that answers are sampled at, >= 0; 0 takes the likeliest.
        top_p: keep the likeliest tokens up to this probability, in (0, 1].
        top_k: keep this many likeliest tokens, >= 0; 0 keeps all.
        stop: strings that end an answer.
        engine: who generates.
        keep: what is written.
        per_question: answers of a question that ``right`` keeps at most, > 0.
        skip: questions passed over at the beginning, >= 0, such as those asked in an earlier leg.
        together: questions answered side by side, > 0; a kill loses as many at most.
        seed: root of the random streams, >= 0.
        threads: CPU threads; None leaves torch's choice.
    """

    model: ModelSpec
    prompts: PromptSource
    questions: int
    rewards: dict[str, Reward] = field(default_factory=dict)
    samples: int = 4
    new_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    engine: Engine = field(default_factory=Local)
    keep: Literal["all", "right", "best", "pairs", "hard_pairs", "groups"] = "all"
    per_question: int = 1
    skip: int = 0
    together: int = 16
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("questions", "samples", "new_tokens", "per_question", "together"):
            require(getattr(self, name) > 0, f"{name} must be > 0, found {getattr(self, name)}")
        require(self.skip >= 0 and self.seed >= 0, f"skip and seed must be >= 0, found {self.skip} and {self.seed}")
        require(self.threads is None or self.threads > 0, f"threads must be > 0, found {self.threads}")
        require(
            self.keep == "all" or bool(self.rewards), f"keep: {self.keep} needs rewards to tell answers apart, such as {{right: exact}}"
        )
        require(
            self.keep not in ("pairs", "hard_pairs", "groups") or self.samples > 1,
            f"keep: {self.keep} needs samples > 1, found {self.samples}",
        )
        self.sampling()

    def sampling(self) -> Sampling:
        """Return how tokens are chosen."""
        return Sampling(self.temperature, self.top_p, self.top_k, tuple(self.stop))


@dataclass(frozen=True)
class Judged:
    """An answer and what it is worth.

    Args:
        text: the answer without its end mark.
        tokens: its length, end mark included.
        ended: whether it ended by itself.
        value: sum of its rewards' values; without meaning when not judged.
        judged: whether all rewards could judge it; not without rewards.
        right: whether all of them passed it.
    """

    text: str
    tokens: int
    ended: bool
    value: float
    judged: bool
    right: bool

    @property
    def reward(self) -> float | None:
        """The value, or None where there is none."""
        return self.value if self.judged else None


def rows_of(prompt: str, answers: Sequence[Judged], keep: str, per_question: int = 1) -> list[dict[str, Any]]:
    """Return the rows that are written of one question's answers; see ``Answers``."""
    finished = [one for one in answers if one.ended]
    if keep == "all":
        return [_row(prompt, one) for one in finished]
    if keep == "groups":
        varied = len({one.value for one in answers if one.judged}) > 1
        group = {"prompt": prompt, "answers": [one.text for one in answers], "rewards": [one.reward for one in answers]}
        return [group] if varied else []
    told = sorted((one for one in finished if one.judged), key=lambda one: (-one.value, one.tokens))
    if keep == "best":
        return [_row(prompt, one) for one in told[:1]]
    if keep == "right":
        distinct: dict[str, Judged] = {}
        for one in told:
            if one.right:
                distinct.setdefault(one.text, one)
        return [_row(prompt, one) for one in list(distinct.values())[:per_question]]
    judged = [one for one in answers if one.judged]
    if keep == "pairs":
        chosen, rejected = next(iter(told), None), min(judged, key=lambda one: one.value, default=None)
    else:
        chosen = next((one for one in told if one.right), None)
        rejected = max((one for one in judged if not one.right), key=lambda one: one.value, default=None)
    if chosen is None or rejected is None or chosen.value == rejected.value:
        return []
    return [{"prompt": prompt, "chosen": chosen.text, "rejected": rejected.text}]


def _row(prompt: str, one: Judged) -> dict[str, Any]:
    return {"prompt": prompt, "answer": one.text, "reward": one.reward}


def write_answers(spec: Answers, budget: Budget, folder: Path, *, name: str = "answers", display: Display | None = None,
                  began: float | None = None, clock: Callable[[], float] = time.monotonic) -> Result:  # fmt: skip
    """Ask, judge and write within a budget, or go on where a stopped or killed process was.

    Args:
        spec: what is asked.
        budget: limits on some of ``UNITS``; may be empty, as the questions end it.
        folder: gets ``answers.jsonl``, a journal and ``result.json``.
        name: as the result calls it.
        display: what a person sees meanwhile; None for nothing.
        began: reading of ``clock`` from which seconds count.
        clock: returns seconds.

    Returns:
        The result: ``ended_by`` is ``questions``, the unit that ran out before, or ``signal``; metrics are the numbers of questions, answers
        and rows, the share of right answers among those judged, and the mean length in tokens.

    Raises:
        InputError: when something cannot be opened or the file has been finished; nothing has been created then.
        MissingExtra: when an optional package is needed.
    """
    lines = read_journal(folder) if (folder / JOURNAL).is_file() else []
    if how_ended(lines) not in (None, "signal"):
        raise InputError(f"the answers in {folder} have been written; choose another folder")
    meter = Meter(budget, clock, began)
    with Signals() as signals:
        with meter.spend(SETUP):
            opened = _Opened(spec, budget, meter)
            folder.mkdir(parents=True, exist_ok=True)
            journal = Journal(folder, meter)
        work = _Writing(opened, meter, journal, display or Quiet(), signals, folder, name)
        try:
            return work.run(lines)
        finally:
            journal.close()
            work.display.close()


class _Opened:
    """Model, questions and judges, ready."""

    def __init__(self, spec: Answers, budget: Budget, meter: Meter) -> None:
        self.spec = spec
        if spec.threads:
            torch.set_num_threads(spec.threads)
        loaded = spec.model.build(spec.seed)
        self.parameters = sum(p.numel() for p in loaded.module.parameters())
        _check_ceilings(loaded.module, self.parameters, budget)
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.module = loaded.module.to(device or "cpu").eval().requires_grad_(False)
        self.context = Context(spec.seed, loaded.tokenizer, device or torch.device("cpu"))
        self.tokenizer = tokenizer_of(self.context, "a leg of answers")
        self.questions: Questions = spec.prompts.open(self.context)
        self.panel = Panel(spec.rewards, self.context)
        self.generator = spec.engine.open(self.module, self.context)
        with meter.spend("plan"):
            self.flops_per_position, spent = self._measured()
            meter.charge("plan", flops=spent)

    def _measured(self) -> tuple[float, float]:
        """Return the FLOPs of a forward pass per position, at the width that sequences come to, and what measuring took."""
        width = len(encode(self.questions.draw(1), self.tokenizer)[0]) + self.spec.new_tokens - 1
        ids = torch.full((1, width), self.tokenizer.pad_token_id, device=self.context.device)
        with torch.no_grad(), CountFlops() as flops:
            self.module(input_ids=ids, attention_mask=torch.ones_like(ids))
        return flops.total / width, float(flops.total)


def _check_ceilings(module: nn.Module, parameters: int, budget: Budget) -> None:
    held = sum(p.numel() * p.element_size() for p in module.parameters())
    for unit, found, shown in (("params", parameters, f"{parameters:,} parameters"), ("memory", held, f"{size(held)} of weights")):
        if found > budget.ceilings.get(unit, found):
            raise InputError(
                f"the model that answers has {shown}, more than the budget's ceiling on {unit}; choose a smaller one or raise it"
            )


@dataclass
class _Writing:
    """Answers being written."""

    opened: _Opened
    meter: Meter
    journal: Journal
    display: Display
    signals: Signals
    folder: Path
    name: str
    #: what the journal's last line of kind ``answers`` says: how far it has come, and sums over all answers
    come: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("asked", "answers", "judged", "right", "length", "rows", "offset"), 0)
    )
    #: the unit that ran out
    over: str | None = None
    #: how long judging and writing take, and a piece of generation
    tail: Tail = field(default_factory=Tail)
    piece: Tail = field(default_factory=Tail)

    def run(self, lines: list[dict[str, Any]]) -> Result:
        spec, meter = self.opened.spec, self.meter
        with meter.spend(SETUP):
            self._take_up(lines) if lines else self._write_head()
            self.opened.questions.advance(spec.skip + int(self.come["asked"]))
        if meter.budget.limits:
            self.display.start(meter.budget, meter.budget.limits)
        self.display.doing("rollout")
        with open(self.folder / FILE, "ab") as file:
            # what a killed process wrote and did not book is written again
            file.truncate(int(self.come["offset"]))
            while self.come["asked"] < spec.questions and self.over is None and not self.signals.stop:
                self._ask(file, min(spec.together, spec.questions - int(self.come["asked"])))
        if self.over is not None:
            return self._finish(ending_unit(meter.budget, self.over), SPENT)
        return self._finish(ASKED, SPENT) if self.come["asked"] == spec.questions else self._finish("signal", STOPPED)

    def _ask(self, file: Any, count: int) -> None:
        """Ask some questions, and keep what is worth it of those that were answered in full."""
        spec, meter = self.opened.spec, self.meter
        with meter.spend("rollout"):
            questions = self.opened.questions.draw(count)
            limit = spec.new_tokens
            requests = [
                Request(ids, spec.samples, limit, question.place)
                for ids, question in zip(encode(questions, self.opened.tokenizer), questions, strict=True)
            ]
            seed = derive(spec.seed, "train/answers")
            written = self.opened.generator.generate(requests, spec.sampling(), seed=seed, leave=self._leave)
        self.piece.began, self.tail.began = None, meter.spent("seconds")
        groups = [(question, written[i * spec.samples : (i + 1) * spec.samples]) for i, question in enumerate(questions)]
        groups = [(question, mine) for question, mine in groups if all(one.ended != "cut" for one in mine)]
        with meter.spend("reward"):
            judged = self._judge(groups)
        with meter.spend("data"):
            rows = [
                row
                for (question, _), mine in zip(groups, judged, strict=True)
                for row in rows_of(question.text, mine, spec.keep, spec.per_question)
            ]
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
            file.flush()
            os.fsync(file.fileno())
        every = [one for mine in judged for one in mine]
        seen = {
            "asked": count, "answers": len(every), "judged": sum(one.judged for one in every), "right": sum(one.right for one in every),
            "length": sum(one.tokens for one in every), "rows": len(rows),
        }  # fmt: skip
        self.come = {key: self.come[key] + amount for key, amount in seen.items()} | {"offset": file.tell()}
        self.opened.questions.advance(count)
        self.tail.ended(meter.spent("seconds"))
        self.journal.write("answers", over=self.over, **self.come)

    def _leave(self, work: Work) -> bool:
        amounts = work.amounts(self.opened.flops_per_position)
        now = self.meter.spent("seconds")
        self.piece.ended(now)
        for unit, limit in flow_limits(self.meter.budget).items():
            ahead = amounts.get(unit, 0.0)
            if unit == "seconds":
                ahead = self.piece.expected() + self.tail.expected() + min(CLOSING_SECONDS, CLOSING_SHARE * limit)
            # what there was leave for beforehand has been done: it is charged in any case
            if work.when != "after" and self.meter.spent(unit) + ahead > limit:
                self.over = unit
                return False
        self.piece.began = now
        if work.when != "ahead":
            self.meter.charge("rollout", **{unit: amount for unit, amount in amounts.items() if amount})
        return True

    def _judge(self, groups: Sequence[tuple[Question, Sequence[Completion]]]) -> list[list[Judged]]:
        spec, tokenizer = self.opened.spec, self.opened.tokenizer
        answers = [answer_of(question, one, tokenizer, spec.new_tokens) for question, mine in groups for one in mine]
        told = self.opened.panel.verdicts(answers)
        values, known = combine(told, dict.fromkeys(told, 1.0)) if told else ([0.0] * len(answers), [False] * len(answers))
        right = [bool(told) and all(verdicts[i].outcome == "passed" for verdicts in told.values()) for i in range(len(answers))]
        found = [Judged(one.text, one.tokens, one.ended, values[i], known[i], right[i]) for i, one in enumerate(answers)]
        return [found[i * spec.samples : (i + 1) * spec.samples] for i in range(len(groups))]

    # ---- books --------------------------------------------------------------------------------------------------------------------------

    def _write_head(self) -> None:
        budget, spec = self.meter.budget, self.opened.spec
        price = {"usd": budget.price.usd, "per": budget.price.per} if budget.price else None
        self.journal.write(
            "run", format=1, name=self.name, recipe=describe(spec), budget=str(budget), limits=dict(budget.limits), ceilings=dict(budget.ceilings),
            price=price, seed=spec.seed, versions=versions(), device=str(self.opened.context.device), threads=torch.get_num_threads(), processes=1,
            precision=str(next(self.opened.module.parameters()).dtype).removeprefix("torch."), parameters=self.opened.parameters, trainable=0,
        )  # fmt: skip

    def _take_up(self, lines: list[dict[str, Any]]) -> None:
        """Go on from the last line: what every line charged was done and stays."""
        booked: dict[str, dict[str, float]] = {}
        for line in lines:
            for account, book in line.get("charged", {}).items():
                mine = booked.setdefault(account, {})
                for unit, amount in book.items():
                    mine[unit] = mine.get(unit, 0.0) + amount
        self.meter.load_state_dict({"accounts": booked, "lost": {}})
        last: Mapping[str, Any] = next((line for line in reversed(lines) if line["kind"] == "answers"), {"over": None})
        self.come = {key: last.get(key, amount) for key, amount in self.come.items()}
        self.over = last["over"]
        self.journal.write("resume", from_step=0, from_line=len(lines), lost={})

    def _finish(self, ended_by: str, code: int) -> Result:
        with self.meter.spend("report"):
            self.journal.write("end", ended_by=ended_by, message="")
            self.journal.sync()
            self._result(ended_by, code).write()
        self.meter.close()
        self.journal.write("closed")
        result = self._result(ended_by, code)
        result.write()
        self.display.say(f"{int(self.come['rows'])} rows of {int(self.come['answers'])} answers to {int(self.come['asked'])} questions")
        return result

    def _result(self, ended_by: str, code: int) -> Result:
        meter, come = self.meter, self.come
        spent = meter.totals()
        metrics = {"questions": come["asked"], "answers": come["answers"], "rows": come["rows"]}
        if come["answers"]:
            metrics["length"] = come["length"] / come["answers"]
        if come["judged"]:
            metrics["right"] = come["right"] / come["judged"]
        budget = {unit: {"limit": limit, "spent": spent[unit]} for unit, limit in meter.budget.limits.items()}
        return Result(
            self.name, ended_by, code, budget, spent, meter.books(), dict(meter.lost), {key: float(value) for key, value in metrics.items()}, {}, [],
            self.opened.spec.seed, versions(), self.opened.parameters, 0, None, None, list(self.journal.warnings), str(self.folder),
        )  # fmt: skip


__all__ = ["FILE", "UNITS", "Answers", "Judged", "rows_of", "write_answers"]
