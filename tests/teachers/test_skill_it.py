"""Skill-It: shares by hand, the limits of its graph, its window, rounds and options, and graphs from short trials."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.teachers import SkillIt
from outlay.teachers.base import Asking, Examined
from outlay.teachers.skill_it import learn_graph_from_drops
from outlay.testing import check_teacher

NAMES = ("a", "b", "c")
ARMS = [Arm(name) for name in NAMES]
GRAPH = ((1.0, 0.3, 0.0), (0.2, 1.0, 0.7), (0.0, 0.0, 1.0))
LOSSES = np.array([2.0, 0.5, 1.2])


def asking(count: int = 10) -> Asking:
    return Asking(count, 0.0, np.full(3, np.nan), np.zeros(3), numpy_generator(0, "test"))


def shares(*evaluations: Any, progress: float = 0.5, **fields: Any) -> np.ndarray:
    lessons = SkillIt(**{"graph": GRAPH, **fields}).open(ARMS, Context(seed=0))
    for losses in evaluations:
        lessons.examined(np.asarray(losses, float), progress)
    return lessons.shares(asking())


def softmax(scores: Any) -> np.ndarray:
    weights = np.exp(np.asarray(scores, float))
    return weights / weights.sum()


def test_the_first_round_takes_every_loss_for_one() -> None:
    assert shares(eta=0.8) == pytest.approx(softmax([0.8 * 1.3, 0.8 * 1.9, 0.8 * 1.0]))


def test_a_round_by_hand() -> None:
    worth = [2.0 + 0.3 * 0.5, 0.2 * 2.0 + 0.5 + 0.7 * 1.2, 1.2]
    assert shares(LOSSES, eta=0.7) == pytest.approx(softmax(0.7 * np.array(worth)))


def test_the_window_sums_the_latest_alone_and_is_no_product() -> None:
    seen = [LOSSES + k for k in (9.0, 0.1, 0.2, 0.3)]
    assert shares(*seen, eta=0.3) == pytest.approx(softmax(0.3 * np.array(GRAPH) @ sum(seen[1:])))
    assert shares(*seen[:2], eta=0.3) == pytest.approx(softmax(0.3 * np.array(GRAPH) @ sum(seen[:2])))
    assert shares(*seen, eta=0.3, window=1) == pytest.approx(softmax(0.3 * np.array(GRAPH) @ seen[-1]))


def test_without_help_or_without_eta_shares_are_even_or_the_prior() -> None:
    zero = ((0.0,) * 3,) * 3
    circulant = ((1.0, 0.3, 0.2), (0.2, 1.0, 0.3), (0.3, 0.2, 1.0))
    for told in (shares(LOSSES, graph=zero), shares(np.full(3, 1.7), graph=circulant), shares(LOSSES, eta=0.0)):
        assert told == pytest.approx(np.full(3, 1 / 3))
    assert shares(LOSSES, eta=0.0, prior={"a": 2.0, "c": 5.0}) == pytest.approx([2 / 8, 1 / 8, 5 / 8])
    assert shares(LOSSES, graph=None, eta=0.9) == pytest.approx(softmax(0.9 * LOSSES))


def test_shares_do_not_overflow_and_sum_to_one() -> None:
    told = shares(LOSSES * 1e6, eta=100.0)
    assert told.tolist() == [1.0, 0.0, 0.0]


@given(st.integers(0, 2), st.floats(0.1, 3.0))
def test_a_harder_skill_lifts_those_that_help_it_more(skill: int, more: float) -> None:
    harder = LOSSES.copy()
    harder[skill] += more
    before, after = (np.log(shares(losses, eta=0.5)) for losses in (LOSSES, harder))
    column = np.array(GRAPH)[:, skill]
    for i, j in itertools.permutations(range(3), 2):
        assert (after - before)[i] - (after - before)[j] == pytest.approx(0.5 * more * (column[i] - column[j]))


@given(st.permutations(range(3)))
def test_the_order_of_the_skills_has_no_influence(order: list[int]) -> None:
    turned = tuple(tuple(GRAPH[i][j] for j in order) for i in order)
    lessons = SkillIt(turned).open([ARMS[i] for i in order], Context(seed=0))
    lessons.examined(LOSSES[order], 0.5)
    assert lessons.shares(asking()) == pytest.approx(shares(LOSSES)[order])


def test_a_graph_by_name_and_edges_of_one() -> None:
    named = {"a": {"b": 0.3}, "b": {"a": 0.2, "c": 0.7}}
    assert shares(LOSSES, graph=named) == pytest.approx(shares(LOSSES))
    ones = ((1, 1, 0), (0, 1, 0), (0, 0, 1))
    halves = ((1, 0.5, 0), (0, 1, 0), (0, 0, 1))
    assert shares(LOSSES, graph=ones) == pytest.approx(shares(LOSSES, graph=halves))
    assert shares(LOSSES, graph=ones, unit_edge=1.0) == pytest.approx(softmax(0.5 * np.array(ones) @ LOSSES))
    negative = ((1, -0.4, 0), (0, 1, 0), (0, 0, 1))
    assert shares(LOSSES, graph=negative) == pytest.approx(softmax(0.5 * np.array(negative) @ LOSSES))
    assert shares(LOSSES, graph=negative, clip=True) == pytest.approx(softmax(0.5 * LOSSES))


def test_targets_count_alone_and_their_window_is_a_mean() -> None:
    told = shares(LOSSES, LOSSES + 1, targets=("b",))
    assert told == pytest.approx(softmax(0.5 * np.array(GRAPH)[:, 1] * (0.5 + 1.5) / 2))
    assert shares(targets=("b",)) == pytest.approx(softmax(0.5 * np.array(GRAPH)[:, 1]))


def test_what_was_not_measured_adds_nothing() -> None:
    assert shares([np.nan, 0.5, np.nan]) == pytest.approx(softmax(0.5 * np.array(GRAPH)[:, 1] * 0.5))
    assert shares([np.nan] * 3) == pytest.approx(shares())


def test_growing_and_relative() -> None:
    fallen = LOSSES / 4
    summed = np.array(GRAPH) @ (LOSSES + fallen)
    assert shares(LOSSES, fallen, growing=True) == pytest.approx(softmax(0.5 / (1 / 4) * summed))
    assert shares(LOSSES, fallen, relative=True) == pytest.approx(softmax(0.5 * np.array(GRAPH) @ np.full(3, 1.25)))


def test_halving_and_isolated() -> None:
    graph = np.array(GRAPH)
    own = np.diag(np.diag(graph))
    assert shares(LOSSES, LOSSES, halving=True, window=1) == pytest.approx(softmax(0.5 * (own + (graph - own) / 4) @ LOSSES))
    pair = ((1, 0.5, 0), (0, 1, 0), (0, 0, 1))
    told = shares(LOSSES, graph=pair, even_isolated=True)
    assert told == pytest.approx([*(softmax(0.5 * (np.array(pair) @ LOSSES)[:2]) * 2 / 3), 1 / 3])
    assert shares(LOSSES, graph=None, even_isolated=True) == pytest.approx(np.full(3, 1 / 3))


def test_rounds_begin_at_their_first_evaluation() -> None:
    lessons = SkillIt(GRAPH, rounds=2).open(ARMS, Context(seed=0))
    first = lessons.shares(asking())
    lessons.examined(LOSSES, 0.25)
    assert lessons.shares(asking()).tolist() == first.tolist()
    lessons.examined(LOSSES + 1, 0.5)
    second = lessons.shares(asking())
    assert second == pytest.approx(softmax(0.5 * np.array(GRAPH) @ (2 * LOSSES + 1)))
    lessons.examined(LOSSES + 9, 0.75)
    assert lessons.shares(asking()).tolist() == second.tolist()


def test_graphs_from_short_trials() -> None:
    before, after = np.array([2.0, 1.0]), np.array([[1.0, 1.1], [1.9, 0.25]])
    assert learn_graph_from_drops(before, after) == pytest.approx(np.array([[0.5, 0.0], [0.05, 0.75]]))
    assert learn_graph_from_drops(before, after[:1]).shape == (1, 2)
    with pytest.raises(ValueError, match="must be > 0"):
        learn_graph_from_drops(np.array([0.0, 1.0]), after)
    with pytest.raises(ValueError, match="shapes"):
        learn_graph_from_drops(before, after[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"graph": ((1.0,),)}, "3 rows of as many numbers"), ({"graph": {"a": {"d": 1.0}}}, "no arm 'd'"), ({"targets": ["d"]}, "targets .* no arm"),
     ({"prior": {"d": 1.0}}, "prior .* no arm"), ({"graph": {"a": {"b": float("nan")}}}, "must be finite")],
)  # fmt: skip
def test_what_does_not_fit_the_arms_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SkillIt(**fields).open(ARMS, Context(seed=0))


@pytest.mark.parametrize("fields", [{"eta": -1.0}, {"window": 0}, {"rounds": 0}, {"prior": {"a": 0.0}}, {"unit_edge": float("inf")}])
def test_ranges(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        SkillIt(**fields)


@pytest.mark.parametrize("fields", [{}, {"rounds": 3, "growing": True, "relative": True, "halving": True}, {"even_isolated": True}])
def test_contract(fields: dict[str, Any]) -> None:
    check_teacher(SkillIt(eta=0.4, **fields))
    assert isinstance(SkillIt().open(ARMS, Context(seed=0)), Examined)
