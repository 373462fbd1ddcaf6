"""What the charts draw: every series thinned to what a screen can show, with the clock of each currency beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from outlay.reporting.fold import Column
from outlay.reporting.format import title
from outlay.reporting.read import RunRecord

#: most points of one series, and of all series of a report together (about 16 bytes each)
SERIES_POINTS = 1500
ALL_POINTS = 60_000
#: a smoothed curve averages over this share of the steps
SMOOTHING = 0.02
#: most metrics whose course is drawn; tables show them all
METRIC_CURVES = 150


def thin(values: np.ndarray, limit: int) -> np.ndarray:
    """Choose at most ``limit`` positions of ``values`` (shape (n,), NaN = nothing seen) that keep its outline.

    The first and the last seen value stay; between them each of equally wide buckets gives its smallest and its largest value, so that
    no spike is lost. Returns increasing positions; NaN is never chosen.
    """
    seen = np.flatnonzero(~np.isnan(values))
    if len(seen) <= limit:
        return seen
    buckets = max(1, (limit - 2) // 2)
    edges = np.linspace(1, len(seen) - 1, buckets + 1).astype(int)
    inner = values[seen]
    chosen = [0, len(seen) - 1]
    for low, high in pairwise(edges):
        if high > low:
            chosen += [low + int(inner[low:high].argmin()), low + int(inner[low:high].argmax())]
    return seen[np.unique(chosen)]


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean over the ``width`` nearest seen values (fewer at the ends), at every seen position; NaN elsewhere. Shape (n,)."""
    seen = np.flatnonzero(~np.isnan(values))
    sums = np.concatenate([[0.0], np.cumsum(values[seen])])
    at = np.arange(len(seen))
    half = width // 2
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(seen))
    out = np.full(len(values), np.nan)
    out[seen] = (sums[high] - sums[low]) / np.maximum(high - low, 1)
    return out


def chart_data(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Return what the page's script reads: for each run its clock, its series, its evaluations and its marks, as plain values.

    The clock holds, at up to 1500 steps, what had been spent of every unit; a series holds positions among the steps and values, and
    the script interpolates the clock between its knots.
    """
    units = axis_units(runs)
    several = len(runs) > 1
    columns = [_step_columns(run, several) for run in runs]
    curves = [_metric_names(run, METRIC_CURVES // len(runs)) for run in runs]
    wanted = sum(len(series) for series in columns) + sum(len(names) for names in curves) + len(runs)
    limit = max(60, min(SERIES_POINTS, ALL_POINTS // max(1, wanted)))
    return {
        "units": [{"key": unit, "title": title(unit)} for unit in units],
        "runs": [_run_data(run, series, names, units, limit) for run, series, names in zip(runs, columns, curves, strict=True)],
    }


def axis_units(runs: Sequence[RunRecord]) -> list[str]:
    """Currencies the horizontal axis may show: the limited ones first, then whatever any run has spent; share of the budget last."""
    limited = [unit for run in runs for unit in run.limits]
    spent = [unit for run in runs for unit, amount in run.spent.items() if amount > 0 and unit != "steps"]
    return list(dict.fromkeys([*limited, *spent, "steps", "share"]))


def drawn_metrics(runs: Sequence[RunRecord]) -> list[str]:
    """Names of evaluation metrics that have a curve: those of the whole first, groups (``exact_match/gcd/1``) after them."""
    names = dict.fromkeys(name for run in runs for name in _metric_names(run, METRIC_CURVES // len(runs)))
    return sorted(names, key=lambda name: name.count("/"))


def _metric_names(run: RunRecord, most: int) -> list[str]:
    names = dict.fromkeys(name for one in run.evaluations for name in one.metrics)
    return sorted(names, key=lambda name: name.count("/"))[:most]


def _step_columns(run: RunRecord, several: bool) -> dict[str, np.ndarray]:
    """Series by name. Several runs are compared on smoothed curves alone for the noisy ones would hide each other."""
    raw = {"loss": _array(run.steps.loss), "gradient_norm": _array(run.steps.gradient_norm)}
    raw.update({f"metrics/{name}": _array(column) for name, column in run.steps.metrics.items()})
    width = max(1, round(SMOOTHING * len(run.steps)))
    series: dict[str, np.ndarray] = {}
    for name, values in raw.items():
        if np.isnan(values).all():
            continue
        series[name] = values
        if width > 2:
            series[f"{name}~"] = smooth(values, width)
        if several and width > 2:
            del series[name]
    series.update({f"knobs/{name}": _array(column) for name, column in run.steps.knobs.items()})
    return series


def _array(column: Column) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in column], dtype=float)


def _run_data(run: RunRecord, series: Mapping[str, np.ndarray], names: Sequence[str], units: Sequence[str], limit: int) -> dict[str, Any]:
    steps = run.steps
    knots = np.unique(np.linspace(0, max(0, len(steps) - 1), min(len(steps), limit)).astype(int)) if len(steps) else np.array([], int)
    clock = {unit: [_short(column[i], 7) for i in knots] for unit in units if (column := _clock_column(run, unit))}
    stride = max(1, math.ceil(len(run.evaluations) / limit))
    shown = [one for i, one in enumerate(run.evaluations) if i % stride == 0 or i == len(run.evaluations) - 1]
    stages = run.stages if len(run.stages) > 1 else []
    return {
        "name": run.name,
        "knots": knots.tolist(),
        "clock": clock,
        "series": {name: _points(values, limit) for name, values in series.items()},
        "evaluations": {
            "at": {unit: [_short(_where(unit, one.step, one.spent, one.share), 7) for one in shown] for unit in units},
            "metrics": {name: [_short(one.metrics.get(name), 6) for one in shown] for name in names},
        },
        "marks": [
            {
                "label": str(event.line.get("stage", "")) if event.kind == "stage" else "resumed",
                "kind": event.kind,
                "at": {unit: _short(_where(unit, _step_of(run, event.spent), event.spent, event.share), 7) for unit in units},
            }
            for event in [*stages, *run.of("resume")]
        ],
    }


def _points(values: np.ndarray, limit: int) -> dict[str, Any]:
    at = thin(values, limit)
    return {"i": at.tolist(), "y": [_short(values[i], 5) for i in at]}


def _clock_column(run: RunRecord, unit: str) -> Sequence[float] | None:
    if unit == "steps":
        return run.steps.step
    return run.steps.share if unit == "share" else run.steps.spent.get(unit)


def _where(unit: str, step: int, spent: Mapping[str, float], share: float) -> float:
    return step if unit == "steps" else share if unit == "share" else spent.get(unit, 0.0)


def _step_of(run: RunRecord, spent: Mapping[str, float]) -> int:
    """Number of the last kept step before ``spent`` had been spent; seconds never go back, so they find it."""
    seconds = np.array(run.steps.spent.get("seconds", []))
    at = int(np.searchsorted(seconds, spent.get("seconds", 0.0), side="right"))
    return run.steps.step[at - 1] if 0 < at <= len(run.steps) else 0


def _short(value: float | None, digits: int) -> float | None:
    """Round to significant digits: a screen shows no more, and the page stays small."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short
