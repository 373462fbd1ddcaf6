"""Adding a journal up: what every step saw, where every unit went, what a kill undid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from outlay.budget import FLOWS
from outlay.reporting.acting import ActingFold
from outlay.reporting.values import finite, finite_number

#: the row of ``by_stage`` for what was charged before any stage began
BEFORE = "before the first stage"
#: and for what closing the run took: the final evaluation, the last lines
AFTER = "after the last stage"
#: stands for a step in charges that closed a run
CLOSED = -1

Books = dict[str, dict[str, float]]
Column = list[float | None]


@dataclass(frozen=True)
class Steps:
    """What each step saw, column by column; all columns are equally long. Steps that a kill threw away are left out.

    Args:
        step: number of the update.
        stage: name of the stage.
        progress: of the stage, in [0, 1].
        share: of the run's whole budget that was spent after the step, in [0, 1] (the largest over its limits).
        loss, gradient_norm: None where not finite or not journaled.
        skipped: whether the update was withheld.
        spent: unit -> amount the whole run had spent after the step, all accounts together.
        knobs, metrics: name -> values; None where a step did not hold the name.
    """

    step: list[int] = field(default_factory=list)
    stage: list[str] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    loss: Column = field(default_factory=list)
    gradient_norm: Column = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)
    spent: dict[str, list[float]] = field(default_factory=dict)
    knobs: dict[str, Column] = field(default_factory=dict)
    metrics: dict[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: where the run stood (``spent`` and ``share`` after it) and what was measured."""

    step: int
    stage: str
    progress: float
    when: str
    metrics: Mapping[str, float]
    spent: Mapping[str, float]
    share: float


@dataclass(frozen=True)
class Event:
    """A journal line of another kind: its kind, the meter's seconds, what had been spent, and the line itself."""

    kind: str
    at: float
    spent: Mapping[str, float]
    share: float
    line: Mapping[str, Any]


class Fold:
    """Adds a journal up, line by line.

    Args:
        head: the journal's first line, which tells the limits and the price.
    """

    def __init__(self, head: Mapping[str, Any]) -> None:
        self.limits: dict[str, float] = dict(head.get("limits") or {})
        self.price: Mapping[str, Any] | None = head.get("price")
        self.total: dict[str, float] = {}
        self.by_stage: dict[str, Books] = {}
        self.stage = BEFORE
        #: (line number, stage) of every stage that began and was not undone
        self.begun: list[tuple[int, str]] = []
        self.steps = Steps()
        self.step_lines: list[int] = []
        self.evaluations: list[Evaluation] = []
        self.evaluation_lines: list[int] = []
        self.events: list[Event] = []
        self.acting = ActingFold()
        self.plan: Mapping[str, Any] | None = None
        #: (line number, what was lost) of every resumption
        self.losses: list[tuple[int, dict[str, float]]] = []
        #: (line number, stage, charges, step whose checkpoint the line reports) of every line that charged
        self.charges: list[tuple[int, str, Books, int | None]] = []

    def take(self, line: Mapping[str, Any]) -> None:
        """Add the next line."""
        kind, n = str(line.get("kind")), int(line.get("n") or 0)
        if kind == "step":
            self.stage = str(line.get("stage") or self.stage)
        elif kind == "end" or (kind == "evaluation" and line.get("when") == "end"):
            self.stage = AFTER
        charged = line.get("charged")
        if charged:
            self._charge(self.stage, charged)
            saved = line.get("step") if kind == "checkpoint" else CLOSED if kind in ("end", "closed") else None
            self.charges.append((n, self.stage, charged, saved))
        if kind == "stage":  # what its own line charges was spent before it
            self.stage = str(line.get("stage") or self.stage)
            self.begun.append((n, self.stage))
        if kind == "step":
            self._step(line)
            self.step_lines.append(n)
        elif kind == "evaluation":
            self.evaluations.append(self._evaluation(line))
            self.evaluation_lines.append(n)
        elif kind == "plan":
            self.plan = line.get("plan")
        elif kind == "rollout":
            self._rollout(line)
        elif kind not in ("run", "branch_step"):  # of a branch's steps only what they used counts here
            if kind == "resume":
                self._resume(line)
            elif kind == "checkpoint":
                self.acting.checkpoint()
            elif kind == "branch":
                self.acting.branch(line)
            self.events.append(Event(kind, float(line.get("at") or 0.0), self.totals(), self.share(), line))

    def _charge(self, stage: str, charged: Mapping[str, Mapping[str, float]], sign: int = 1) -> None:
        for account, amounts in charged.items():
            book = self.by_stage.setdefault(stage, {}).setdefault(account, {})
            for unit, amount in amounts.items():
                book[unit] = book.get(unit, 0.0) + sign * amount
                self.total[unit] = self.total.get(unit, 0.0) + sign * amount

    def _step(self, line: Mapping[str, Any]) -> None:
        steps, seen = self.steps, len(self.steps)
        steps.step.append(int(line.get("step") or 0))
        steps.stage.append(self.stage)
        steps.progress.append(finite_number(line.get("progress")) or 0.0)
        steps.share.append(self.share())
        steps.loss.append(finite_number(line.get("loss")))
        steps.gradient_norm.append(finite_number(line.get("gradient_norm")))
        steps.skipped.append(line.get("outcome") == "skipped")
        _append(steps.knobs, line.get("knobs") or {}, seen)
        _append(steps.metrics, line.get("metrics") or {}, seen)
        for unit, amount in self.total.items():
            if unit not in steps.spent:
                steps.spent[unit] = [0.0] * seen
            steps.spent[unit].append(amount)

    def _rollout(self, line: Mapping[str, Any]) -> None:
        stage, steps = str(line.get("stage") or self.stage), self.steps
        self.acting.take(line, stage, steps.progress[-1] if len(steps) and steps.stage[-1] == stage else 0.0)

    def _evaluation(self, line: Mapping[str, Any]) -> Evaluation:
        return Evaluation(
            int(line.get("step") or 0),
            str(line.get("stage") or self.stage),
            finite_number(line.get("progress")) or 0.0,
            str(line.get("when", "during")),
            finite(line.get("metrics") or {}),
            self.totals(),
            self.share(),
        )

    def _resume(self, line: Mapping[str, Any]) -> None:
        """Take back what will be done again: it is lost work, no part of any curve, and its charges went to the account ``lost``."""
        last = int(line.get("from_step") or 0)
        first_undone = float(line.get("from_line", math.inf))
        if last == 0 and first_undone <= 1:
            first_undone = 0.0  # without a checkpoint the first line's charges are lost as well
        # going back once more to the same checkpoint loses again what was lost before: the newer line tells it all
        self.losses = [(n, lost) for n, lost in self.losses if n < first_undone]
        self.losses.append((int(line.get("n") or 0), finite(line.get("lost") or {})))
        keep = len(self.steps)
        while keep and (self.steps.step[keep - 1] > last or self.step_lines[keep - 1] >= first_undone):
            keep -= 1
        steps = self.steps
        flat: list[list[Any]] = [steps.step, steps.stage, steps.progress, steps.share, steps.loss, steps.gradient_norm, steps.skipped]
        flat.append(self.step_lines)
        for column in [*flat, *steps.spent.values(), *steps.knobs.values(), *steps.metrics.values()]:
            del column[keep:]
        self.acting.undo(first_undone)
        self.begun = [(n, stage) for n, stage in self.begun if n < first_undone]
        self.stage = self.begun[-1][1] if self.begun else BEFORE
        kept = [i for i, one in enumerate(self.evaluations) if one.step <= last and self.evaluation_lines[i] < first_undone]
        self.evaluations = [self.evaluations[i] for i in kept]
        self.evaluation_lines = [self.evaluation_lines[i] for i in kept]
        self._take_back(int(line.get("n") or 0), first_undone, last)

    def _take_back(self, resumed_at: int, first_undone: float, step: int) -> None:
        """Undo the charges from ``first_undone`` on, which the resumption booked as lost; saving the checkpoint of ``step`` was none,
        nor was closing."""
        kept = []
        for entry in self.charges:
            n, stage, charged, saved = entry
            if first_undone <= n < resumed_at and saved not in (step, CLOSED):
                self._charge(stage, charged, -1)
            else:
                kept.append(entry)
        self.charges = kept

    def finished_steps(self) -> Steps:
        """Return the steps with their money worked out."""
        price = self.price
        if price and price.get("per") in self.steps.spent and "usd" not in self.steps.spent:
            self.steps.spent["usd"] = [float(price["usd"]) * amount for amount in self.steps.spent[price["per"]]]
        return self.steps

    def lost(self) -> dict[str, float]:
        """Unit -> amount of work thrown away."""
        total: dict[str, float] = {}
        for _, lost in self.losses:
            for unit, amount in lost.items():
                total[unit] = total.get(unit, 0.0) + amount
        return total

    def totals(self) -> dict[str, float]:
        """Unit -> amount spent so far, money included."""
        return _with_money(self.total, self.price)

    def share(self) -> float:
        """Largest spent share over the limits, in [0, 1]."""
        largest = 0.0
        for unit, limit in self.limits.items():
            spent = self.totals().get(unit, 0.0) if unit == "usd" else self.total.get(unit, 0.0)
            largest = max(largest, spent / limit if limit else 0.0)
        return min(1.0, largest)

    def stages(self) -> dict[str, Books]:
        """Stage -> account -> unit -> spent so far, money included."""
        return {
            stage: {account: _with_money(book, self.price) for account, book in books.items()} for stage, books in self.by_stage.items()
        }

    def books(self) -> Books:
        """Account -> unit -> spent so far, money included."""
        accounts: Books = {}
        for books in self.by_stage.values():
            for account, book in books.items():
                mine = accounts.setdefault(account, {})
                for unit, amount in book.items():
                    mine[unit] = mine.get(unit, 0.0) + amount
        return {account: _with_money(book, self.price) for account, book in accounts.items()}


def _append(columns: dict[str, Column], values: Mapping[str, Any], seen: int) -> None:
    for name, value in values.items():
        if name not in columns:
            columns[name] = [None] * seen
        columns[name].append(finite_number(value))
    if len(values) != len(columns):
        for column in columns.values():
            if len(column) == seen:
                column.append(None)


def _with_money(book: Mapping[str, float], price: Mapping[str, Any] | None) -> dict[str, float]:
    """Order the units as budgets name them and add money, which is never charged but follows from its priced unit."""
    ordered: dict[str, float] = {unit: book[unit] for unit in FLOWS if unit in book}
    ordered.update({unit: amount for unit, amount in book.items() if unit not in ordered})
    if price and price.get("per") in book and "usd" not in book:
        ordered["usd"] = float(price["usd"]) * book[price["per"]]
    return ordered
