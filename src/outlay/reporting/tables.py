"""The tables of a report: where every unit went, what was planned, what was measured. Numbers stay beside their text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlay.reporting.fold import Books
from outlay.reporting.format import compact, duration, number, percent, quantity, size, title
from outlay.reporting.read import RunRecord

_LOWER = ("loss", "perplexity", "error", "regret", "nll")
_HIGHER = ("match", "accuracy", "reward", "pass", "correct", "success", "score", "f1", "solved")
#: what ends a run other than a used-up limit -> (words, tone)
_ENDINGS = {
    None: ("has not ended", "warn"),
    "signal": ("stopped by a signal", "warn"),
    "data": ("ended with its data", "good"),
    "failure": ("failed", "bad"),
}


@dataclass(frozen=True)
class Cell:
    """What a table shows (``text``), the number behind it, and its tone: ``good``, ``bad``, ``warn`` or nothing.

    ``heat`` in [0, 1] shades the cell; ``title`` is told under the pointer.
    """

    text: str
    value: float | None = None
    tone: str = ""
    heat: float | None = None
    title: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a table; ``colour`` names the swatch before its head, ``begins`` sets it off from the line above."""

    head: str
    cells: list[Cell]
    colour: str = ""
    begins: bool = False


@dataclass(frozen=True)
class Table:
    """Column titles (the first one over the row heads), rows, and a closing line of sums."""

    columns: list[str]
    rows: list[Row]
    total: Row | None = None
    caption: str = ""


@dataclass(frozen=True)
class Segment:
    """A part of a stacked bar: ``share`` of the bar's whole length."""

    label: str
    text: str
    share: float
    colour: str


@dataclass(frozen=True)
class Stack:
    """A stacked bar: one for the run, one for each stage."""

    label: str
    text: str
    segments: list[Segment] = field(default_factory=list)


def ending(run: RunRecord) -> tuple[str, str]:
    """Return how the run ended, in words, and the tone of it."""
    if run.ended_by in _ENDINGS:
        return _ENDINGS[run.ended_by]
    return f"ended on its budget of {title(str(run.ended_by))}", "good"


def primary_unit(run: RunRecord) -> str:
    """The unit a run is best spoken of in: the limit that ended it, else the most used one, else seconds."""
    if run.ended_by in run.limits:
        return str(run.ended_by)
    used = {unit: run.spent.get(unit, 0.0) / limit for unit, limit in run.limits.items() if limit}
    return max(used, key=lambda unit: used[unit]) if used else "seconds"


def divided_unit(run: RunRecord) -> str:
    """The unit whose division among accounts says most: the primary one, or seconds where a single account took all of that."""
    unit = primary_unit(run)
    return unit if _takers(run, unit) > 1 else "seconds"


def told_units(run: RunRecord) -> list[str]:
    """Units whose division among accounts is worth a bar: the limited ones that several accounts took of, and seconds."""
    units = dict.fromkeys([divided_unit(run), *run.limits, "seconds"])
    return [unit for unit in units if _takers(run, unit) > (unit != "seconds")]


def _takers(run: RunRecord, unit: str) -> int:
    return sum(bool(book.get(unit)) for book in run.accounts.values())


def ordered_accounts(books: Books, unit: str) -> list[str]:
    """Training first, then by amount, what bought nothing last."""
    last = {"idle": 1, "lost": 2}
    return sorted(books, key=lambda name: (name != "train", last.get(name, 0), -books[name].get(unit, 0.0), name))


def accounts_table(run: RunRecord, only: Sequence[str] | None = None) -> Table:
    """Account by unit (every unit unless some are named); the last line sums to what was spent."""
    units, unit = list(run.spent if only is None else only), divided_unit(run)
    whole = run.spent.get(unit, 0.0)
    rows = [
        Row(name, [*(_spent(one, run.accounts[name].get(one)) for one in units), _share(run.accounts[name].get(unit, 0.0), whole)], name)
        for name in ordered_accounts(run.accounts, unit)
    ]
    total = Row("all accounts", [*(_spent(one, run.spent[one]) for one in units), _share(whole, whole)])
    return Table(["account", *map(title, units), f"share of {title(unit)}"], rows, total)


def stage_tables(run: RunRecord) -> list[tuple[str, Table]]:
    """For each told unit, account by stage; rows and columns are summed."""
    stages = list(run.by_stage)
    tables = []
    for unit in told_units(run):
        names = [name for name in ordered_accounts(run.accounts, unit) if run.accounts[name].get(unit)]
        rows = [
            Row(
                name,
                [*(_spent(unit, run.by_stage[stage].get(name, {}).get(unit)) for stage in stages), _spent(unit, run.accounts[name][unit])],
                name,
            )
            for name in names
        ]
        sums = [sum(book.get(unit, 0.0) for book in run.by_stage[stage].values()) for stage in stages]
        total = Row("all accounts", [*(_spent(unit, value) for value in sums), _spent(unit, run.spent.get(unit, 0.0))])
        tables.append((unit, Table(["account", *stages, "whole run"], rows, total)))
    return tables


def stacks(run: RunRecord, unit: str) -> list[Stack]:
    """Bars of one unit: the whole run up to its limit, what is unspent included, then each stage on the same scale."""
    spent, limit = run.spent.get(unit, 0.0), run.limits.get(unit)
    whole = max(spent, limit or 0.0) or 1.0
    bars = [_stack("whole run", run.accounts, unit, whole)]
    if limit and limit > spent:
        bars[0].segments.append(Segment("unspent", quantity(unit, limit - spent), (limit - spent) / whole, "unspent"))
    if len(run.by_stage) > 1:
        bars += [
            _stack(stage, books, unit, whole) for stage, books in run.by_stage.items() if any(book.get(unit) for book in books.values())
        ]
    return bars


def _stack(label: str, books: Books, unit: str, whole: float) -> Stack:
    parts = [(name, books[name].get(unit, 0.0)) for name in ordered_accounts(books, unit)]
    segments = [Segment(name, quantity(unit, value), value / whole, name) for name, value in parts if value > 0]
    return Stack(label, quantity(unit, sum(value for _, value in parts)), segments)


def stages_table(run: RunRecord) -> Table | None:
    """What each stage was given and did; None when the run has fewer than two."""
    said = {str(one.get("name")): one for one in (run.result or {}).get("stages") or []}
    begun = [str(event.line.get("stage")) for event in run.stages]
    if len(begun) < 2:
        return None
    units = [unit for unit in run.spent if unit in run.limits or unit in {"seconds", "tokens"}]
    shares = {str(event.line.get("stage")): event.line.get("share") for event in run.stages}
    rows = []
    for stage in begun:
        losses = [loss for at, loss in zip(run.steps.stage, run.steps.loss, strict=True) if at == stage and loss is not None]
        spent = [sum(book.get(unit, 0.0) for book in run.by_stage.get(stage, {}).values()) for unit in units]
        share = shares.get(stage)
        last = said.get(stage, {}).get("final_loss", losses[-1] if losses else None)
        cells = [
            Cell(percent(share) if share is not None else "–", share),
            _whole(run.steps.stage.count(stage)),
            *map(_spent, units, spent),
        ]
        rows.append(Row(stage, [*cells, Cell(number(last), last)]))
    return Table(["stage", "share given", "steps", *map(title, units), "last loss"], rows)


def direction(metric: str) -> int:
    """1 when more of a metric is better, -1 when less is, 0 when its name does not tell."""
    name = metric.lower()
    if any(word in name for word in _LOWER):
        return -1
    return 1 if any(word in name for word in _HIGHER) else 0


def metrics_table(run: RunRecord) -> Table | None:
    """Metrics of the whole and pairs such as ``loss/held_out``, before and after."""
    start, end = run.metrics_start, run.metrics_end
    names = [name for name in dict.fromkeys([*start, *end]) if name.count("/") < 2]
    rows = [
        Row(name, [_measured(start.get(name)), _measured(end.get(name)), _change(name, start.get(name), end.get(name))]) for name in names
    ]
    return Table(["metric", "before", "after", "change"], rows) if rows else None


def grouped_tables(run: RunRecord) -> list[Table]:
    """Metrics named ``root/group/level`` as one table a root: groups down, levels across, each cell before → after."""
    start, end = run.metrics_start, run.metrics_end
    roots: dict[str, dict[str, dict[str, str]]] = {}
    for name in dict.fromkeys([*start, *end]):
        if name.count("/") >= 2:
            root, rest = name.split("/", 1)
            group, level = rest.rsplit("/", 1)
            roots.setdefault(root, {}).setdefault(group, {})[level] = name
    tables = []
    for root, groups in roots.items():
        levels = sorted({level for row in groups.values() for level in row}, key=_as_counted)
        members = [name for row in groups.values() for name in row.values()]
        bounded = all(0 <= values[name] <= 1 for values in (start, end) for name in members if name in values)
        rows = [Row(group, [_before_after(start, end, row.get(level), bounded) for level in levels]) for group, row in groups.items()]
        tables.append(Table(["", *levels], rows, caption=root))
    return tables


def _as_counted(level: str) -> tuple[bool, int, str]:
    """Order levels 1, 2, 10 as numbers, other names after them."""
    return (not level.isdigit(), int(level) if level.isdigit() else 0, level)


def _before_after(start: Mapping[str, float], end: Mapping[str, float], name: str | None, bounded: bool) -> Cell:
    if name is None:
        return Cell("")
    before, after = start.get(name), end.get(name)
    tone = _change(name, before, after).tone
    return Cell(f"{number(before)} → {number(after)}", after, tone, after if bounded and after is not None else None)


def plan_table(run: RunRecord) -> Table | None:
    """Plan against actual with their ratio; None when there was no plan."""
    if not run.plan:
        return None
    rows = [
        Row(
            head,
            [Cell(show(planned), planned), Cell(show(actual) if actual is not None else "not measured", actual), _ratio(planned, actual)],
        )
        for head, planned, actual, show in _plan_lines(run, run.plan)
        if planned is not None
    ]
    ends_by = run.plan.get("ends_by")
    if ends_by:
        same = "as planned" if ends_by == run.ended_by else "otherwise"
        rows.append(Row("ended by", [Cell(str(ends_by)), Cell(str(run.ended_by or "has not ended")), Cell(same)]))
    return Table(["", "planned", "actual", "actual / planned"], rows) if rows else None


def _plan_lines(run: RunRecord, plan: Mapping[str, Any]) -> Iterable[tuple[str, float | None, float | None, Any]]:
    done = _steps_done(run)
    train = run.accounts.get("train", {})
    yield "steps", plan.get("steps"), float(done), lambda value: quantity("steps", value)
    for unit in ("examples", "tokens", "seconds", "flops", "rollouts", "new_tokens", "usd"):
        yield title(unit), plan.get(unit), run.spent.get(unit), lambda value, unit=unit: quantity(unit, value)
    trained = train.get("steps", done)  # steps on branches are on accounts of their own
    per_step = {unit: train[unit] / trained for unit in ("seconds", "tokens", "flops") if trained and unit in train}
    yield "time a step", plan.get("step_seconds"), per_step.get("seconds"), duration
    yield "tokens a step", plan.get("tokens_per_step"), per_step.get("tokens"), compact
    yield "FLOPs a step", plan.get("flops_per_step"), per_step.get("flops"), lambda value: quantity("flops", value)
    yield "peak memory", (plan.get("memory") or {}).get("total"), _peak_memory(run), size
    reserve = {unit: kept for unit, kept in (plan.get("reserve") or {}).items() if kept}
    for unit, kept in reserve.items():
        yield f"kept back to finish ({title(unit)})", kept, run.after_last_step.get(unit), lambda value, unit=unit: quantity(unit, value)


def _peak_memory(run: RunRecord) -> float | None:
    """Bytes at the peak, where the result or a step's metric ``peak_memory`` tells it."""
    said = (run.result or {}).get("peak_memory")
    seen = [value for value in run.steps.metrics.get("peak_memory", []) if value is not None]
    return said if said is not None else max(seen, default=None)


def _steps_done(run: RunRecord) -> int:
    return int((run.result or {}).get("steps") or (run.steps.step[-1] if len(run.steps) else 0))


def _ratio(planned: float | None, actual: float | None) -> Cell:
    if not planned or actual is None:
        return Cell("–")
    ratio = actual / planned
    return Cell(f"{ratio:.2f}×", ratio, "warn" if abs(ratio - 1) > 0.3 else "")


def _spent(unit: str, value: float | None) -> Cell:
    return Cell(quantity(unit, value) if value else "–", value or 0.0)


def _whole(value: int) -> Cell:
    return Cell(f"{value:,}", value)


def _share(part: float, whole: float) -> Cell:
    share = part / whole if whole else 0.0
    return Cell(percent(share), share)


def _measured(value: float | None) -> Cell:
    return Cell(number(value), value)


def _change(name: str, before: float | None, after: float | None) -> Cell:
    if before is None or after is None:
        return Cell("–")
    delta = after - before
    tone = "" if delta == 0 or not direction(name) else "good" if delta * direction(name) > 0 else "bad"
    return Cell(f"{delta:+.4g}" if delta else "0", delta, tone)


def checkpoints_table(run: RunRecord) -> Table | None:
    """Step, size and cost of every checkpoint still named in the journal."""
    lines = [event.line for event in run.of("checkpoint")]
    rows = [
        Row(
            str(line.get("path", "")),
            [_whole(int(line.get("step") or 0)), Cell(size(line.get("bytes") or 0)), Cell(duration(line.get("seconds") or 0.0))],
        )
        for line in lines
    ]
    return Table(["checkpoint", "step", "size", "written in"], rows) if rows else None
