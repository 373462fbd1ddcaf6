"""Ranks, paired intervals, time to target and scores, against values worked by hand."""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.bench.statistics import (
    average_ranks,
    mean_interval,
    paired,
    paired_losses,
    profile,
    rank_table,
    ranks,
    ratios,
    score,
    time_to_target,
)
from outlay.bench.study import Cell

losses = st.floats(min_value=-1e3, max_value=1e3)


def cell(method: str, loss: float, share: float = 1.0, seed: int = 0, workload: str = "w") -> Cell:
    return Cell(workload, method, share, seed, 0.1, loss, loss if math.isfinite(loss) else None, {}, {})


def test_an_interval_by_hand() -> None:
    """n = 4, mean 2.5, s = 1.2909944, t(0.975, 3) = 3.1824463: half 2.0542602."""
    interval = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (interval.mean, interval.count) == (2.5, 4)
    assert interval.high - interval.mean == pytest.approx(2.0542602, abs=1e-6)
    assert interval.mean - interval.low == pytest.approx(2.0542602, abs=1e-6)
    assert str(interval) == "2.5 [0.4457, 4.554]"


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert mean_interval([3.0]).mean == 3.0
    assert math.isnan(mean_interval([3.0]).low)
    assert math.isnan(mean_interval([]).mean)
    assert math.isnan(mean_interval([1.0, math.inf]).high)


def test_differences_are_paired_by_seed() -> None:
    """The seeds differ by 100, the methods by 1: only pairing sees it."""
    cells = [
        cell(name, 100.0 * seed + shift + 0.01 * seed * shift, seed=seed) for seed in range(3) for name, shift in (("a", 0.0), ("b", 1.0))
    ]
    found = paired(cells, "a", "b", "w", 1.0)
    assert found.mean == pytest.approx(-1.01)
    assert found.high < 0
    assert paired([*cells, cell("a", 5.0, seed=9)], "a", "b", "w", 1.0) == found  # a seed without its pair does not count


def test_a_run_that_diverged_is_worse_than_any_that_did_not() -> None:
    fine, broken = {0: 1.0, 1: 2.0}, {0: 1.0, 1: math.inf}
    worse, better, even = paired_losses(broken, fine), paired_losses(fine, broken), paired_losses(broken, broken)
    assert worse.low == worse.high == math.inf and better.high == better.low == -math.inf
    assert (even.mean, even.low, even.high) == (0.0, 0.0, 0.0)
    assert math.isnan(paired_losses({0: math.inf, 1: 1.0}, broken).low)  # each diverged once: nothing is said


def test_ranks_with_ties_and_divergence() -> None:
    assert ranks({"a": 1.0, "b": 3.0, "c": 1.0, "d": math.inf, "e": math.inf}) == {"a": 1.5, "c": 1.5, "b": 3.0, "d": 4.5, "e": 4.5}


@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), losses, min_size=1, max_size=8))
def test_ranks_sum_to_the_same_and_follow_the_losses(row: dict[str, float]) -> None:
    placed = ranks(row)
    assert sum(placed.values()) == pytest.approx(len(row) * (len(row) + 1) / 2)
    for a, b in product(row, row):
        assert (placed[a] < placed[b]) == (row[a] < row[b])


def test_a_place_counts_where_every_method_was_measured() -> None:
    cells = [cell("a", 1.0), cell("b", 2.0), cell("a", 1.0, seed=1), cell("b", 0.0, share=0.5), cell("a", 1.0, share=0.5)]
    assert rank_table(cells, ["a", "b"]) == {("w", 1.0, 0): {"a": 1.0, "b": 2.0}, ("w", 0.5, 0): {"a": 2.0, "b": 1.0}}
    assert list(rank_table(cells, ["a", "b"], [0.5])) == [("w", 0.5, 0)]


def test_average_ranks_weigh_workloads_alike() -> None:
    """In v (one place) a is first; in w (three places) b is: the mean of the workloads' means is 1.5 for both, that of places is not."""
    table = {("v", 1.0, 0): {"a": 1.0, "b": 2.0}, **{("w", share, 0): {"a": 2.0, "b": 1.0} for share in (0.1, 0.5, 1.0)}}
    found = average_ranks(table)
    assert (found["a"].mean, found["b"].mean) == (1.5, 1.5)
    assert (found["a"].low, found["a"].high) == (1.0, 2.0)
    assert average_ranks(table) == found  # the resampling has its own named stream
    assert average_ranks({}) == {}


def test_time_to_target_takes_the_median_over_seeds() -> None:
    cells = [
        cell("a", loss, share, seed)
        for share, row in ((0.1, (3, 1, 3)), (0.5, (1, 1, 3)), (1.0, (1, 1, 1)))
        for seed, loss in enumerate(row)
    ]
    assert time_to_target(cells, 1.0) == 0.5
    assert time_to_target(cells, 3.0) == 0.1
    assert time_to_target(cells, 0.9) == math.inf


def test_scores_by_hand() -> None:
    times = {
        "v": {"a": 1.0, "b": 2.0, "c": math.inf},
        "w": {"a": 3.0, "b": 1.0, "c": 9.0},
        "x": {"a": math.inf, "b": math.inf, "c": math.inf},
    }
    by_method = ratios(times)
    assert by_method["a"] == {"v": 1.0, "w": 3.0, "x": math.inf}
    assert score([1.0, 3.0, math.inf]) == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert score(list(by_method["c"].values())) == 0.0  # 9 times the best is beyond the largest ratio


@given(st.lists(st.floats(min_value=1.0, max_value=6.0) | st.just(math.inf), min_size=1, max_size=8))
def test_the_score_is_the_area_under_the_profile(ratio: list[float]) -> None:
    edges = [1.0, *sorted(one for one in ratio if 1.0 < one < 4.0), 4.0]
    area = sum((b - a) * profile(ratio, (a + b) / 2) for a, b in pairwise(edges))
    assert score(ratio) == pytest.approx(area / 3, abs=1e-12)


@given(st.dictionaries(st.sampled_from("uvw"), st.tuples(*[st.floats(min_value=0.1, max_value=10)] * 3), min_size=1))
def test_a_faster_competitor_never_raises_a_score(times: dict[str, tuple[float, float, float]]) -> None:
    two = ratios({w: {"a": a, "b": b} for w, (a, b, _) in times.items()})
    three = ratios({w: {"a": a, "b": b, "c": c} for w, (a, b, c) in times.items()})
    assert score(list(three["a"].values())) <= score(list(two["a"].values())) + 1e-12
    alone = ratios({w: {"a": a} for w, (a, _, _) in times.items()})
    assert score(list(alone["a"].values())) == 1.0


def test_resampled_intervals_hold_the_mean_of_what_they_were_drawn_from() -> None:
    rng = np.random.default_rng(0)
    table = {(f"w{w}", 1.0, s): ranks({m: float(rng.normal(k)) for k, m in enumerate("abcd")}) for w in range(6) for s in range(3)}
    found = average_ranks(table)
    assert [found[m].mean for m in "abcd"] == sorted(found[m].mean for m in "abcd")
    assert all(one.low < one.mean < one.high for one in found.values())
