"""Thinning, smoothing, and the clock beside the curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_runs import Made

from outlay.reporting.curves import SERIES_POINTS, axis_units, chart_data, smooth, thin
from outlay.reporting.fold import Steps
from outlay.reporting.read import read_run

Make = Callable[..., Made]
values = arrays(np.float64, st.integers(0, 400), elements=st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)))


@given(values, st.integers(4, 60))
def test_thinning_keeps_ends_and_extremes(column: np.ndarray, limit: int) -> None:
    chosen = thin(column, limit)
    seen = np.flatnonzero(~np.isnan(column))
    assert len(chosen) <= limit
    assert (np.diff(chosen) > 0).all()
    assert set(chosen) <= set(seen)
    if len(seen):
        assert chosen[0] == seen[0] and chosen[-1] == seen[-1]
        assert column[chosen].max() == column[seen].max() and column[chosen].min() == column[seen].min()
    if len(seen) <= limit:
        assert (chosen == seen).all()


@given(values, st.integers(1, 31))
def test_smoothing_is_the_mean_of_the_neighbours(column: np.ndarray, width: int) -> None:
    smoothed = smooth(column, width)
    seen = np.flatnonzero(~np.isnan(column))
    assert (np.isnan(smoothed) == np.isnan(column)).all()
    for k, position in enumerate(seen):
        near = column[seen[max(0, k - width // 2) : k + width // 2 + 1]]
        assert smoothed[position] == pytest.approx(near.mean(), rel=1e-6, abs=1e-3)


def test_short_runs_are_drawn_whole(make: Make) -> None:
    run = read_run(make(steps=60).path)
    data = chart_data([run])["runs"][0]
    assert data["knots"] == list(range(60))
    assert data["clock"]["steps"] == list(range(1, 61))
    assert data["clock"]["tokens"] == pytest.approx(run.steps.spent["tokens"], rel=1e-6)
    assert data["clock"]["share"] == pytest.approx(run.steps.share, rel=1e-6)
    assert data["series"]["loss"]["i"] == list(range(60))
    assert data["series"]["loss"]["y"] == pytest.approx(run.steps.loss, rel=1e-4)
    assert data["evaluations"]["metrics"]["exact_match"] == pytest.approx([one.metrics["exact_match"] for one in run.evaluations], rel=1e-5)
    assert data["evaluations"]["at"]["seconds"] == pytest.approx([one.spent["seconds"] for one in run.evaluations], rel=1e-6)
    assert [mark["label"] for mark in data["marks"]] == ["sft", "polish"]
    assert data["marks"][1]["at"]["steps"] == 45


def test_the_clock_between_knots_is_true_to_a_screen(make: Make) -> None:
    run = read_run(make(steps=20).path)
    n = 40_000
    seconds = (np.cumsum(np.random.default_rng(0).gamma(2.0, 0.05, n))).tolist()
    steps = Steps(list(range(1, n + 1)), ["sft"] * n, [0.0] * n, [0.0] * n, [1.0] * n, [1.0] * n, [False] * n, {"seconds": seconds})
    data = chart_data([replace(run, steps=steps)])["runs"][0]
    assert len(data["knots"]) <= SERIES_POINTS
    between = np.interp(np.arange(n), data["knots"], data["clock"]["seconds"])
    assert np.abs(between - seconds).max() < seconds[-1] / 1000


def test_currencies_of_the_axis(make: Make) -> None:
    run = read_run(make(steps=20, tokens=1e6, price={"usd": 1.0, "per": "seconds"}).path)
    assert axis_units([run])[0] == "tokens"
    assert set(axis_units([run])) == {"tokens", "seconds", "examples", "flops", "usd", "steps", "share"}


def test_resumption_is_marked_where_it_happened(make: Make) -> None:
    run = read_run(make(steps=160, killed_at=(95,)).path)
    marks = chart_data([run])["runs"][0]["marks"]
    resumed = next(mark for mark in marks if mark["kind"] == "resume")
    assert resumed["at"]["steps"] == 80
    assert run.steps.spent["seconds"][79] < resumed["at"]["seconds"] < run.steps.spent["seconds"][80]


def test_several_runs_are_compared_on_smoothed_curves(make: Make) -> None:
    runs = [read_run(make("a", steps=200).path), read_run(make("b", steps=200, seed=1).path)]
    series = chart_data(runs)["runs"][1]["series"]
    assert "loss~" in series and "loss" not in series
    assert "knobs/lr" in series
