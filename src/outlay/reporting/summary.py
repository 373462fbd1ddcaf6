"""What a terminal says of a run that is over: where every unit went, whether the budget was kept, what was gained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlay.reporting.acting import Acting
from outlay.reporting.compare import lost_text
from outlay.reporting.format import amount, compact, number, percent, quantity, title
from outlay.reporting.maps import Course, courses, use_text
from outlay.reporting.read import RunRecord
from outlay.reporting.tables import accounts_table, divided_unit, ending, metrics_table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: most warnings told; the report tells them all
MOST_WARNINGS = 5
#: most kinds of questions told of a stage; the report tells them all
MOST_COURSES = 12
#: most characters of a kind's name
LONGEST_KIND = 24
_STYLES = {"good": "green", "bad": "red", "warn": "yellow", "": ""}


def print_summary(run: RunRecord, console: Console | None = None) -> None:
    """Print ``summary(run)``, to standard output unless another console is given."""
    from rich.console import Console

    (console or Console()).print(summary(run))


def summary(run: RunRecord) -> RenderableType:
    """Return what to print about a run: how it ended, the budget, the accounts, metrics before and after, what was asked, warnings."""
    from rich.console import Group
    from rich.text import Text

    words, tone = ending(run)
    parts: list[RenderableType] = [Text.assemble((run.name, "bold"), "  ", (words, _STYLES[tone]))]
    parts += [Text.assemble(("  budget  ", "dim"), line) for line in budget_lines(run)]
    parts += ["", _accounts(run)]
    metrics = metrics_table(run)
    if metrics:
        rows = [(row.head, [cell.text for cell in row.cells], _STYLES[row.cells[-1].tone]) for row in metrics.rows]
        parts += ["", _table(metrics.columns, rows)]
    for acting in run.acting:
        parts += _asked(acting, acting.stage if len(run.acting) > 1 else "")
    lost = lost_text(run)
    if lost:
        parts += ["", Text(f"  lost work: {lost}", style="yellow")]
    told = [*run.notes, *run.warnings]
    parts += [Text(f"  warning: {message}", style="yellow") for message in told[:MOST_WARNINGS]]
    if len(told) > MOST_WARNINGS:
        parts.append(Text(f"  and {len(told) - MOST_WARNINGS} more warnings; the report shows them all", style="yellow"))
    return Group(*parts)


def budget_lines(run: RunRecord) -> list[str]:
    """One line a limit: what was spent of it and whether it was kept."""
    lines = []
    for unit, limit in run.limits.items():
        spent = run.spent.get(unit, 0.0)
        over = spent > limit * (1 + 1e-9)
        verdict = f"over by {amount(unit, spent - limit)}" if over else f"kept, {amount(unit, limit - spent)} unused"
        lines.append(f"{quantity(unit, spent)} of {amount(unit, limit)} spent ({percent(spent / limit)}), {verdict}")
    return lines or ["no limit was declared"]


def _accounts(run: RunRecord) -> RenderableType:
    """Accounts by unit; a bar tells the share of the unit that was limited."""
    unit = divided_unit(run)
    units = [one for one in run.spent if one in run.limits or one in {"seconds", "tokens", "usd"}]
    table = accounts_table(run, units)
    rows = []
    for row in table.rows:
        share = row.cells[-1].value or 0.0
        bar = "█" * round(16 * share) or ("▏" if share else "")
        rows.append((row.head, [*(cell.text for cell in row.cells), bar], "red" if row.head == "lost" else ""))
    if table.total:
        rows.append(("all", [cell.text for cell in table.total.cells] + [""], "bold"))
    return _table([*table.columns[:-1], f"% of {title(unit)}", ""], rows)


def _asked(acting: Acting, stage: str) -> list[RenderableType]:
    """What a stage asked for over its progress, and what came of it; nothing where the journal does not tell."""
    from rich.text import Text

    said, found = use_text(acting), courses(acting)
    if not said and not found:
        return []
    head = ": ".join(text for text in (stage, said) if text)
    parts: list[RenderableType] = ["", *([Text(f"  {head}", style="dim")] if head else [])]
    if found:
        often = sorted(found, key=lambda course: -course.asked)[:MOST_COURSES]
        rows = [(_shortened(course.kind), _told(course), "") for course in found if course in often]
        parts.append(_table(["asked", "over the stage", "questions", "share", "success"], rows))
        if len(found) > len(often):
            parts.append(Text(f"  and {len(found) - len(often)} more; the report shows them all", style="dim"))
    return parts


def _told(course: Course) -> list[str]:
    success = "–" if course.before is None else f"{number(round(course.before, 2))} → {number(round(course.after or 0.0, 2))}"
    return [course.marks, compact(course.asked), percent(course.share), success]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_KIND else text[: LONGEST_KIND - 1] + "…"


def _table(columns: list[str], rows: list[tuple[str, list[str], str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 2), pad_edge=True, header_style="dim")
    for i, column in enumerate(columns):
        last = i == len(columns) - 1 and not column
        table.add_column(Text(column), justify="left" if i == 0 or last else "right", style="cyan" if last else "", no_wrap=True)
    for head, cells, style in rows:
        table.add_row(Text(head), *(Text(cell) for cell in cells), style=style)
    return table
