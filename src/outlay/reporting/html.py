"""One self-contained HTML page about one run or several: opens offline, reads nothing from anywhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outlay.errors import InputError
from outlay.reporting.compare import comparison_table, differences_table, grouped_table, labels, lost_text, unfair
from outlay.reporting.curves import chart_data, drawn_metrics
from outlay.reporting.format import amount, compact, duration, number, percent, quantity, size, title
from outlay.reporting.maps import maps, use_text
from outlay.reporting.read import RunRecord
from outlay.reporting.tables import (
    accounts_table,
    checkpoints_table,
    direction,
    ending,
    grouped_tables,
    metrics_table,
    plan_table,
    primary_unit,
    stacks,
    stage_tables,
    stages_table,
    told_units,
)
from outlay.reporting.values import finite

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = Path(__file__).parent
#: most lines of the log that are shown; the journal holds them all
MOST_LOG_LINES = 400
#: what is drawn of a step's answers: metric, dashed beside it, title, and what the dashed curve is
_PAIRS = (
    ("varied_after_repair", "varied", "Groups with signal", "before repair"),
    ("rollouts_trained", "rollouts_generated", "Answers trained on", "generated"),
)


def render(runs: Sequence[RunRecord]) -> str:
    """Return the page for these runs, beginning with ``<!doctype html>``; several are overlaid and compared.

    Args:
        runs: at least one run, as ``read_run`` gives it.

    Raises:
        InputError: when there is no run.
    """
    if not runs:
        raise InputError("a report needs at least one run; give the folders of the runs to show")
    names = labels(runs)
    data = chart_data(runs)
    for run, name in zip(data["runs"], names, strict=True):
        run["name"] = name
    script = (_HERE / "charts.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    several = len(runs) > 1
    return _template().render(
        heading=" vs ".join(names) if several and len(names) <= 3 else f"{len(names)} runs" if several else names[0],
        views=[run_view(run, name) for run, name in zip(runs, names, strict=True)],
        comparison=_comparison(runs) if several else None,
        charts=charts(runs),
        units=data["units"],
        data=embed(data),
        style=(_HERE / "style.css").read_text("utf-8"),
        script=script,
        script_hash=digest,
    )


def _comparison(runs: Sequence[RunRecord]) -> dict[str, Any]:
    return {
        "table": comparison_table(runs),
        "grouped": grouped_table(runs),
        "differences": differences_table(runs),
        "unfair": unfair(runs),
    }


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((_HERE / "template.html.j2").read_text("utf-8"))


def embed(data: Any) -> str:
    """Return JSON that is safe inside a ``<script>`` element: no text in it can close the element or open a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def charts(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return the charts of a page by group: what each draws, and what else it may be switched to."""
    found: list[dict[str, Any]] = []
    if any(value is not None for run in runs for value in run.steps.loss):
        found.append({"group": "loss", "kind": "step", "title": "Training loss", "choices": ["loss"], "scale": True})
    if any(value is not None for run in runs for value in run.steps.gradient_norm):
        found.append({"group": "loss", "kind": "step", "title": "Gradient norm", "choices": ["gradient_norm"], "scale": True})
    metrics = drawn_metrics(runs)
    for first in metrics[:2]:
        found.append({"group": "evaluation", "kind": "evaluation", "title": "Evaluation", "choices": _first(metrics, first), "scale": True})
    knobs = list(dict.fromkeys(name for run in runs for name in run.steps.knobs))
    for name in knobs[:24]:
        found.append({"group": "knobs", "kind": "step", "title": name, "choices": [f"knobs/{name}"], "scale": False})
    names = {name for run in runs for name in run.steps.metrics}
    for solid, dashed, heading, other in _PAIRS:
        if dashed in names:
            drawn = {
                "group": "answers",
                "kind": "step",
                "title": heading,
                "scale": False,
                "choices": [f"metrics/{solid if solid in names else dashed}"],
            }
            found.append({**drawn, "other": f"metrics/{dashed}", "other_title": other} if solid in names else drawn)
    measured = [f"metrics/{name}" for name in dict.fromkeys(name for run in runs for name in run.steps.metrics)]
    for first in measured[:2]:
        found.append({"group": "measured", "kind": "step", "title": "By step", "choices": _first(measured, first), "scale": True})
    return found


def _first(names: list[str], chosen: str) -> list[str]:
    return [chosen, *(name for name in names if name != chosen)]


def run_view(run: RunRecord, name: str) -> dict[str, Any]:
    """Return all that the template shows of one run, as text and tables."""
    words, tone = ending(run)
    unit = primary_unit(run)
    ends = run.of("end")
    return {
        "name": name,
        "ending": words,
        "tone": tone,
        "message": str(ends[-1].line.get("message") or "") if ends else "",
        "budget": str(run.head.get("budget") or ""),
        "tiles": tiles(run),
        "bars": budget_bars(run),
        "unit": title(unit),
        "accounts": accounts_table(run),
        "stage_tables": [(title(one), table) for one, table in stage_tables(run)],
        "stacks": [(title(one), stacks(run, one)) for one in told_units(run)],
        "stages": stages_table(run),
        "lost": lost_text(run),
        "resumes": len(run.of("resume")),
        "metrics": metrics_table(run),
        "grouped": grouped_tables(run),
        "acting": [{"name": one.stage, "said": use_text(one), "maps": maps(one)} for one in run.acting],
        "plan": plan_table(run),
        "plan_notes": [*map(str, (run.plan or {}).get("notes") or [])],
        "plan_basis": str((run.plan or {}).get("basis") or ""),
        "memory": memory(run),
        "log": log(run),
        "notes": run.notes,
        "warnings": run.warnings,
        "checkpoints": checkpoints_table(run),
        "recipe": run.recipe_text,
        "facts": facts(run),
        "versions": {str(key): str(value) for key, value in (run.head.get("versions") or {}).items()},
    }


def tiles(run: RunRecord) -> list[dict[str, str]]:
    """The few numbers a reader wants first: budget used, steps, the main metrics, how much of the time trained."""
    unit = primary_unit(run)
    spent, limit = run.spent.get(unit, 0.0), run.limits.get(unit)
    found = [
        {"label": f"{title(unit)} spent", "value": percent(spent / limit), "under": f"{quantity(unit, spent)} of {quantity(unit, limit)}"}
        if limit
        else {"label": f"{title(unit)} spent", "value": quantity(unit, spent), "under": "no limit"}
    ]
    steps = run.steps.step[-1] if len(run.steps) else 0
    skipped = sum(run.steps.skipped)
    tokens = run.spent.get("tokens")
    under = f"{compact(tokens)} tokens" if tokens else f"{compact(run.spent.get('examples', 0.0))} examples"
    found.append({"label": "steps", "value": f"{steps:,}", "under": f"{skipped} skipped, {under}" if skipped else under})
    start, end = run.metrics_start, run.metrics_end
    told = sorted((name for name in end if name.count("/") < 2), key=lambda name: (name.count("/"), -direction(name)))
    for name in told[:2]:
        under = f"{number(start[name])} before training" if name in start else "no evaluation before training"
        found.append({"label": name, "value": number(end[name]), "under": under})
    losses = [loss for loss in run.steps.loss if loss is not None]
    if losses and len(told) < 2:
        tail = losses[-max(1, len(losses) // 50) :]
        found.append({"label": "training loss", "value": number(sum(tail) / len(tail)), "under": f"{number(losses[0])} at the first step"})
    seconds = run.spent.get("seconds", 0.0)
    train = run.accounts.get("train", {}).get("seconds", 0.0)
    if seconds:
        found.append(
            {"label": "of the time trained", "value": percent(train / seconds), "under": f"{duration(seconds - train)} for everything else"}
        )
    return found


def budget_bars(run: RunRecord) -> list[dict[str, Any]]:
    """Limit, spent and unused of every limited unit, and whether the limit was kept."""
    bars = []
    for unit, limit in run.limits.items():
        spent = run.spent.get(unit, 0.0)
        over = spent > limit * (1 + 1e-9)
        verdict = f"over by {amount(unit, spent - limit)}" if over else f"{amount(unit, max(0.0, limit - spent))} unused"
        bars.append(
            {
                "unit": title(unit),
                "limit": quantity(unit, limit),
                "spent": quantity(unit, spent),
                "verdict": verdict,
                "over": over,
                "raw_limit": limit,
                "raw_spent": spent,
                "share": min(1.0, spent / limit),
                "percent": percent(spent / limit),
                "ended": unit == run.ended_by,
            }
        )
    return bars


def memory(run: RunRecord) -> list[dict[str, Any]]:
    """The parts of the planned memory, largest first."""
    planned = (run.plan or {}).get("memory") or {}
    parts = {name: value for name, value in planned.items() if name != "total" and value}
    whole = sum(parts.values())
    return [
        {"label": name, "text": size(value), "share": value / whole} for name, value in sorted(parts.items(), key=lambda part: -part[1])
    ]


def log(run: RunRecord) -> list[dict[str, Any]]:
    """Decisions, warnings, stages, resumes and the end, in order, with the time each was written."""
    lines = []
    told = {"decision": ("what", "why"), "warning": ("message", ""), "stage": ("stage", ""), "end": ("ended_by", "message")}
    for event in run.events:
        if event.kind == "resume":
            lost = ", ".join(amount(unit, value) for unit, value in (event.line.get("lost") or {}).items() if value)
            what, why = f"from step {event.line.get('from_step')}", f"lost: {lost}" if lost else "nothing lost"
        elif event.kind == "branch" and (event.line.get("path") or event.line.get("metrics")):
            found = ", ".join(f"{name} {number(value)}" for name, value in finite(event.line.get("metrics") or {}).items())
            what, why = f"{event.line.get('name')} after {event.line.get('steps')} steps", found or str(event.line.get("path"))
        elif event.kind in told:
            keys = told[event.kind]
            what, why = str(event.line.get(keys[0]) or ""), str(event.line.get(keys[1]) or "")
        else:
            continue
        lines.append({"at": duration(event.at), "kind": event.kind, "what": what, "why": why})
    journaled = {line["what"] for line in lines if line["kind"] == "warning"}
    lines += [{"at": "", "kind": "warning", "what": message, "why": ""} for message in run.warnings if message not in journaled]
    if len(lines) <= MOST_LOG_LINES:
        return lines
    left = {"at": "", "kind": "", "what": f"{len(lines) - MOST_LOG_LINES} lines left out; journal.jsonl holds them", "why": ""}
    half = MOST_LOG_LINES // 2
    return [*lines[:half], left, *lines[-half:]]


def facts(run: RunRecord) -> dict[str, str]:
    """Seed, machine and model, as the journal's first line tells them."""
    head = run.head
    parameters, trainable = head.get("parameters"), head.get("trainable")
    found = {
        "seed": head.get("seed"),
        "device": head.get("device"),
        "threads": head.get("threads"),
        "precision": head.get("precision"),
        "parameters": f"{parameters:,}" if isinstance(parameters, int) else parameters,
        "trainable": f"{trainable:,}" if isinstance(trainable, int) else trainable,
    }
    found["processes"] = head["processes"] if (head.get("processes") or 1) > 1 else None
    found["replay"] = "repeats a recorded run" if head.get("replay") else None
    found["ceilings"] = ", ".join(amount(unit, value) for unit, value in run.ceilings.items()) or None
    price = head.get("price")
    found["price"] = f"${price['usd']:.3g} per {price['per']}" if price else None
    return {key: str(value) for key, value in found.items() if value is not None}
