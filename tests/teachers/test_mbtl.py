"""MBTL: choices by hand, its limits, and regret on made landscapes."""

import math

import numpy as np
import pytest

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError, MissingExtra
from outlay.rng import numpy_generator
from outlay.teachers import Asking
from outlay.teachers.base import Examined
from outlay.teachers.mbtl import Mbtl, MbtlLessons, best_observed, estimated_slope
from outlay.testing.teachers import ARMS, check_teacher

pytest.importorskip("sklearn.gaussian_process")
LINE = np.linspace(0, 1, 11)[:, None]


def line_arms(count: int) -> list[Arm]:
    return [Arm(f"{i}", point=(i / (count - 1),)) for i in range(count)]


def asking(progress: float = 0.0, count: int = 3) -> Asking:
    return Asking(count, progress, np.zeros(1), np.zeros(1), numpy_generator(0, "test"))


def test_contract() -> None:
    check_teacher(Mbtl(restarts=0), steps=2, long=20)
    on_a_line = [Arm(arm.name, point=arm.point[:1]) for arm in ARMS]
    check_teacher(Mbtl(greedy=True, slope=None), on_a_line, steps=3, long=20)


def test_the_first_is_the_middle() -> None:
    assert Mbtl().next(LINE, {}) == 5
    assert Mbtl().next(LINE[:10], {}) == 4  # of two equally near the first
    assert Mbtl().next(np.array([[0.0], [0.1], [0.2], [1.0]]), {}) == 2  # of the range, not of the numbers


def observed(rows: dict[int, list[float]]) -> dict[int, np.ndarray]:
    return {context: np.array(row) for context, row in rows.items()}


def test_acquisition_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, deviation = np.array([0.5, 0.4, 0.9]), np.array([0.2, 0.1, 0.3])
    monkeypatch.setattr("outlay.teachers.mbtl._process", lambda *_: (mean, deviation))
    places, seen = np.array([[0.0], [0.5], [1.0]]), observed({1: [0.3, 0.8, 0.6], 0: [0.55, 0.2, 0.1]})
    best, k = np.array([0.55, 0.8, 0.6]), 3
    for beta, value in (("constant", 1.0), ("falling", 1 / (k + 1)), ("growing", math.sqrt(math.log(k + 1)))):
        wins, spread = Mbtl(slope=0.4, beta=beta).acquisition(places, seen)  # type: ignore[arg-type]
        expected = [
            np.mean(
                [max(mean[i] + math.sqrt(value) * deviation[i] - 0.4 * abs(places[i, 0] - places[j, 0]) - best[j], 0) for j in range(3)]
            )
            for i in range(3)
        ]
        np.testing.assert_allclose(wins, expected)
        assert spread is deviation


def test_without_a_slope_the_best_source_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = np.array([0.2, 0.7, 0.5, 0.69])
    monkeypatch.setattr("outlay.teachers.mbtl._process", lambda *_: (mean, np.zeros(4)))
    places, seen = np.linspace(0, 1, 4)[:, None], observed({1: [0.1, 0.7, 0.2, 0.3]})
    np.testing.assert_allclose(Mbtl(slope=0.0).acquisition(places, seen)[0], [np.maximum(m - seen[1], 0).mean() for m in mean])
    assert Mbtl(slope=0.0).next(places, seen) == 3  # 1 has been trained on


def test_a_steep_slope_spreads_the_choices() -> None:
    seen: dict[int, np.ndarray] = {}
    for _ in range(11):
        context = Mbtl(slope=100.0, restarts=0).next(LINE, seen)
        assert context not in seen
        seen[context] = np.where(np.arange(11) == context, 0.5, -50.0)
    assert sorted(seen) == list(range(11))  # all of them once: the oracle's table
    with pytest.raises(InputError, match="all 11 contexts"):
        Mbtl().next(LINE, seen)


def test_ties_go_to_the_first_and_without_hope_to_the_least_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlay.teachers.mbtl._process", lambda *_: (np.full(4, 0.5), np.zeros(4)))
    places = np.linspace(0, 1, 4)[:, None]
    assert Mbtl(slope=0.0).next(places, observed({0: [0.1, 0.1, 0.1, 0.1]})) == 1
    monkeypatch.setattr("outlay.teachers.mbtl._process", lambda *_: (np.zeros(4), np.array([0.3, 0.1, 0.2, 0.1])))
    assert Mbtl().next(places, observed({0: [0.9] * 4})) == 2


def test_the_best_observed_only_grows_and_passes_over_what_was_not_measured() -> None:
    table = np.array([[0.2, np.nan, np.nan], [0.1, 0.5, np.nan], [0.3, 0.4, np.nan]])
    assert np.array_equal(best_observed(table), [0.3, 0.5, np.nan], equal_nan=True)
    assert np.array_equal(best_observed(table[:1]), [0.2, np.nan, np.nan], equal_nan=True)
    wins, _ = Mbtl(restarts=0).acquisition(np.array([[0.0], [0.5], [1.0]]), observed({0: [0.2, np.nan, np.nan]}))
    assert np.all(np.isfinite(wins))
    wins, deviations = Mbtl(restarts=0).acquisition(LINE[:2], observed({0: [np.nan, np.nan]}))
    assert wins.tolist() == [0, 0] and np.all(deviations > 0.9)  # nothing known: the prior


def test_the_process_goes_through_what_was_observed() -> None:
    seen = observed({5: [0.6] * 11, 0: [0.2] * 11})
    _, deviation = Mbtl(restarts=0).acquisition(LINE, seen)
    assert np.argmin(deviation) in (0, 5) and deviation[5] < 0.11 < deviation[9]


def test_the_slope_is_estimated_at_the_nearest_source() -> None:
    places = LINE[:, 0]
    distances = np.abs(places[:, None] - places[None])
    table = np.array([0.9 - 0.7 * distances[2], 0.5 - 0.7 * distances[8]])
    assert estimated_slope(distances, np.array([2, 8]), table) == pytest.approx(0.7)
    table[0, 8:] = table[1, :3] = -5.0  # far from its source nothing counts
    assert estimated_slope(distances, np.array([2, 8]), table) == pytest.approx(0.7)
    assert estimated_slope(distances[:1, :1], np.array([0]), np.array([[0.5]])) == 0
    lost = np.array([[0.5, 0.4, 0.1]])  # .1 at .5 and .4 at 1: (.05 + .4) / (.25 + 1)
    apart = np.abs(np.array([0, 0.5, 1])[:, None] - np.array([0, 0.5, 1])[None])
    assert estimated_slope(apart, np.array([0]), lost) == pytest.approx(0.36)


def test_greedy_cuts_the_largest_gap() -> None:
    places = np.arange(101)[:, None] / 100
    seen: dict[int, np.ndarray] = {}
    for _ in range(5):
        seen[Mbtl(greedy=True).next(places, seen)] = np.zeros(101)
    # the middle; a third from an end; the gap 50 .. 100 at two thirds; then 17 .. 50 and 50 .. 83 by half
    assert list(seen) == [50, 17, 83, 33, 66]
    with pytest.raises(InputError, match="2 dimensions"):
        Mbtl(greedy=True).next(np.zeros((3, 2)), {})


def test_a_teacher_goes_on_at_evaluations_after_the_end_of_a_piece() -> None:
    lessons = Mbtl(pieces=2, greedy=True).open(line_arms(5), Context(0))
    assert isinstance(lessons, Examined)
    assert lessons.shares(asking()).tolist() == [0, 0, 1, 0, 0] and lessons.choose(asking()).tolist() == [2, 2, 2]
    losses = np.array([0.5, 0.4, 0.1, np.nan, 0.6])
    lessons.examined(losses, 0.4)
    assert lessons.trained == [2]
    lessons.examined(losses / 2, 0.5)
    assert lessons.trained == [2, 1]  # of 0 .. .5, cut at a third, .25 is nearer than 0
    assert lessons.state_dict() == {"trained": [2, 1], "table": [[0.75, 0.8, 0.95, None, 0.7]]}
    lessons.examined(losses, 0.7)
    lessons.examined(losses * 0, 1.0)
    assert lessons.trained == [2, 1] and lessons.table[1][:3] == [1, 1, 1]  # the last evaluation of a piece counts


def test_no_more_pieces_than_contexts() -> None:
    lessons = Mbtl(pieces=50, restarts=0).open(line_arms(3), Context(0))
    for progress in (0.0, 0.3, 0.34, 0.67, 0.9, 1.0):
        lessons.examined(np.full(3, 0.5), progress)
    assert sorted(lessons.trained) == [0, 1, 2]


def test_states_resume_with_what_was_not_measured() -> None:
    lessons = Mbtl(pieces=3, restarts=0).open(line_arms(5), Context(0))
    lessons.examined(np.array([0.5, 0.4, 0.1, np.nan, 0.6]), 0.5)
    other = Mbtl(pieces=3, restarts=0).open(line_arms(5), Context(0))
    other.load_state_dict(lessons.state_dict())
    assert isinstance(other, MbtlLessons) and math.isnan(other.table[0][3])
    for taught in (lessons, other):
        taught.examined(np.full(5, 0.25), 0.9)
    assert lessons.state_dict() == other.state_dict() and len(other.trained) == 3


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"pieces": 0}, {"slope": -1.0}, {"beta": "large"}, {"restarts": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Mbtl(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="mbtl goes by places"):
        Mbtl().open([Arm("a")], Context(0))
    with pytest.raises(InputError, match="on a line"):
        Mbtl(greedy=True).open(ARMS, Context(0))
    monkeypatch.setitem(__import__("sys").modules, "sklearn.gaussian_process", None)
    with pytest.raises(MissingExtra, match="tasks"):
        Mbtl().open(line_arms(3), Context(0))


def test_regret_after_five_contexts_is_below_random_and_mostly_below_an_even_grid() -> None:
    found: dict[str, list[float]] = {"mbtl": [], "random": [], "grid": []}
    places = np.linspace(0, 1, 50)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ability = 0.6 + 0.32 * np.sin(2 * np.pi * (rng.uniform(0.5, 1.2) * places + rng.random()))
        table = ability[:, None] - 0.3 * np.abs(places[:, None] - places[None]) + 0.02 * rng.standard_normal((50, 50))
        seen: dict[int, np.ndarray] = {}
        for k in range(5):
            context = Mbtl(slope=0.3, restarts=0).next(places[:, None], seen, seed=k)
            seen[context] = table[context]
        for name, chosen in (("mbtl", list(seen)), ("grid", [5, 15, 25, 35, 45]), *(("random", rng.permutation(50)[:5]) for _ in range(9))):
            found[name].append(float((table.max(axis=0) - table[chosen].max(axis=0)).mean()))
    assert np.mean(found["mbtl"]) < 0.75 * np.mean(found["random"])
    # five even contexts, known to be five ahead, are hard to beat; now and then a good region is never looked at, hence the median
    assert np.median(found["mbtl"]) < 0.75 * np.median(found["grid"])
