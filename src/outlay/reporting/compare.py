"""Several runs side by side: one line a quantity, one column a run, and what makes the comparison unfair."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from outlay.reporting.format import amount, number, percent, quantity, title
from outlay.reporting.read import RunRecord
from outlay.reporting.tables import Cell, Row, Table, direction, ending

#: most settings shown as differing
MOST_DIFFERENCES = 60


def comparison_table(runs: Sequence[RunRecord]) -> Table:
    """Budget, ending, spending and results, a column a run; the best of each metric whose direction is known is marked ``good``."""
    units = list(dict.fromkeys(unit for run in runs for unit in [*run.limits, *run.spent]))
    rows = [
        Row("budget", [Cell(str(run.head.get("budget") or "–")) for run in runs]),
        Row("ended", [Cell(ending(run)[0], tone="" if ending(run)[1] == "good" else ending(run)[1]) for run in runs]),
        Row("seed", [Cell(str(run.head.get("seed", "–"))) for run in runs]),
        Row("steps", [Cell(f"{step:,}", step) for run in runs for step in [run.steps.step[-1] if len(run.steps) else 0]]),
    ]
    rows += [
        Row(f"{title(unit)} spent", [Cell(quantity(unit, value), value) for run in runs for value in [run.spent.get(unit)]])
        for unit in units
        if unit != "steps"
    ]
    rows.append(Row("share of time in train", [_train_share(run) for run in runs]))
    for unit in ("seconds", "steps"):
        if any(run.lost.get(unit) for run in runs):
            rows.append(Row(f"{title(unit)} lost", [Cell(quantity(unit, value), value) for run in runs for value in [run.lost.get(unit)]]))
    rows += _metric_rows(runs, grouped=False)
    return Table(["", *labels(runs)], rows)


def grouped_table(runs: Sequence[RunRecord]) -> Table | None:
    """Final values of the grouped metrics (``exact_match/gcd/1``), a column a run; None when there are none."""
    rows = _metric_rows(runs, grouped=True)
    return Table(["metric", *labels(runs)], rows) if rows else None


def _metric_rows(runs: Sequence[RunRecord], grouped: bool) -> list[Row]:
    names = dict.fromkeys(name for run in runs for name in [*run.metrics_start, *run.metrics_end] if (name.count("/") >= 2) == grouped)
    rows = []
    for name in sorted(names, key=lambda name: name.count("/")):
        starts = [run.metrics_start.get(name) for run in runs]
        rows.append(Row(name, [_result(cell, before) for cell, before in zip(_marked(name, runs), starts, strict=True)]))
    return rows


def labels(runs: Sequence[RunRecord]) -> list[str]:
    """Names that tell the runs apart: with the directory where two are called the same, numbered where that is not enough."""
    names = [run.name for run in runs]
    told = [name if names.count(name) == 1 else f"{name} ({run.path.name})" for name, run in zip(names, runs, strict=True)]
    return [name if told.count(name) == 1 else f"{name} #{i + 1}" for i, name in enumerate(told)]


def lost_text(run: RunRecord) -> str:
    """What a kill threw away, in words; empty when nothing was."""
    units = dict.fromkeys(unit for unit in ("seconds", "steps", "tokens", *run.lost) if run.lost.get(unit))
    return ", ".join(amount(unit, run.lost[unit]) for unit in units)


def unfair(runs: Sequence[RunRecord]) -> list[str]:
    """Reasons why the runs may not be compared as equals: budgets, machines, runs that did not end."""
    found = []
    named = labels(runs)
    if not equal_budgets(runs):
        told = "; ".join(f"{name}: {_budget(run)}" for name, run in zip(named, runs, strict=True))
        found.append(f"The budgets differ, so this is not a comparison at equal budget. {told}.")
    for key in ("device", "threads", "precision"):
        values = [run.head.get(key) for run in runs]
        if any(value != values[0] for value in values) and any({"seconds", "usd"} & run.limits.keys() for run in runs):
            told = "; ".join(f"{name}: {value}" for name, value in zip(named, values, strict=True))
            found.append(f"The runs had a different {key}, and time buys different amounts of work there. {told}.")
    unended = [name for name, run in zip(named, runs, strict=True) if run.ended_by is None]
    if unended:
        found.append(f"Not ended yet, so their results are not final: {', '.join(unended)}.")
    return found


def equal_budgets(runs: Sequence[RunRecord]) -> bool:
    """Whether all runs had the same limits, ceilings and price."""
    budgets = [(run.limits, run.ceilings, run.head.get("price")) for run in runs]
    return all(budget == budgets[0] for budget in budgets)


def _budget(run: RunRecord) -> str:
    parts = [amount(unit, value) for unit, value in [*run.limits.items(), *run.ceilings.items()]]
    return ", ".join(parts) or "no limits"


def differences_table(runs: Sequence[RunRecord]) -> Table | None:
    """Settings of the recipes that are not the same in every run; None when they all are."""
    flats = [dict(flatten(run.head.get("recipe") or {})) for run in runs]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    different = [key for key in keys if any(flat.get(key) != flats[0].get(key) for flat in flats)]
    rows = [Row(key, [Cell(_setting(flat.get(key))) for flat in flats]) for key in different[:MOST_DIFFERENCES]]
    left = len(different) - len(rows)
    return Table(["setting", *labels(runs)], rows, caption=f"and {left} more" if left else "") if rows else None


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (``stages[0].knobs.lr``, value) for every leaf of a plain recipe."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for i, inner in enumerate(value):
            yield from flatten(inner, f"{path}[{i}]")
    else:
        yield path, value


def _setting(value: Any) -> str:
    text = value if isinstance(value, str) else "–" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _train_share(run: RunRecord) -> Cell:
    seconds = run.spent.get("seconds", 0.0)
    share = run.accounts.get("train", {}).get("seconds", 0.0) / seconds if seconds else 0.0
    return Cell(percent(share), share)


def _marked(name: str, runs: Sequence[RunRecord]) -> list[Cell]:
    """Final values; the best is marked, but only where the budgets were equal and the metric's name tells what is better."""
    values = [run.metrics_end.get(name) for run in runs]
    known = [value for value in values if value is not None]
    sign = direction(name)
    best = max(known, key=lambda value: sign * value) if sign and len(set(known)) > 1 and equal_budgets(runs) else None
    return [Cell(number(value), value, "good" if value is not None and value == best else "") for value in values]


def _result(after: Cell, before: float | None) -> Cell:
    return after if before is None else Cell(f"{number(before)} → {after.text}", after.value, after.tone)
