import numpy as np
import pytest
from asked import CONTEXT, answered, arms, asking, used
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outlay.arms import Outcome
from outlay.teachers import HistoricalVariance, Lim
from outlay.teachers.historical_variance import deviations
from outlay.teachers.lim import lim_scores

NAN = float("nan")
HISTORIES = hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(0, 0.9))


def test_scores_of_constant_histories() -> None:
    for c in (0.25, 0.5):
        history = np.array([[1.0] * 3, [0.0] * 3, [c] * 3])
        mean = history.mean()
        scores = lim_scores(history)
        assert scores[0] == pytest.approx(0.0, abs=1e-12)
        assert scores[1] == pytest.approx(1 - (mean / (1 - mean)) ** 2)


@given(HISTORIES, st.randoms())
def test_the_mean_curve_scores_one_and_order_does_not_matter(history: np.ndarray, random: object) -> None:
    scores = lim_scores(history)
    grown = lim_scores(np.vstack([history, history.mean(axis=0)]))
    assert grown[-1] == pytest.approx(1.0)
    assert np.allclose(grown[:-1], scores)
    order = np.random.default_rng(0).permutation(history.shape[1])
    assert np.allclose(lim_scores(history[:, order]), scores)
    assert np.all(scores <= 1.0)


def test_always_solved_is_zero_and_everything_solved_is_one() -> None:
    assert lim_scores(np.array([[1.0, 1.0], [0.0, 0.5]]))[0] == pytest.approx(0.0, abs=1e-12)
    assert lim_scores(np.ones((3, 4))).tolist() == [1.0, 1.0, 1.0]


def test_single_gaps_are_filled_from_the_next_epoch() -> None:
    whole = np.array([[0.1, 0.4, 0.4], [0.2, 0.3, 0.9]])
    gap = whole.copy()
    gap[0, 1] = NAN
    assert np.allclose(lim_scores(gap), lim_scores(whole))
    # two neighbours: the first looks at a gap and stays one; the last has no next
    for row in ([NAN, NAN, 0.3], [0.1, 0.3, NAN]):
        scores = lim_scores(np.array([row, [0.2, 0.3, 0.9], [0.1, 0.1, 0.1]]))
        assert np.isnan(scores[0])
        assert np.allclose(scores[1:], lim_scores(np.array([[0.2, 0.3, 0.9], [0.1, 0.1, 0.1]])))
    # the epoch after those that count may fill
    longer = np.array([[0.1, NAN, 0.4], [0.2, 0.3, 0.9]])
    assert np.allclose(lim_scores(longer, epochs=2), lim_scores(np.array([[0.1, 0.4], [0.2, 0.3]])))
    assert np.all(np.isnan(lim_scores(np.full((2, 2), NAN))))


def test_deviations() -> None:
    found = deviations(np.array([[0.0, 1.0, 0.0, 1.0], [0.3] * 4, [0.0, NAN, 1.0, NAN], [NAN] * 4]))
    assert found[:3] == pytest.approx([0.5, 0.0, 0.5])
    assert np.isnan(found[3])


def visited(lessons: object, rows: list[list[int | None]]) -> None:
    """Let every epoch pass, (epochs, arms): right answers of four, or None where nothing could be judged."""
    for row in rows:
        batch = [Outcome(arm, ()) if right is None else answered(arm, right, 4) for arm, right in enumerate(row)]
        lessons.update(used(batch), batch)  # type: ignore[attr-defined]


ROWS: list[list[int | None]] = [[4, 0, 0, 1, 4], [4, 0, 4, 2, 4], [4, 0, 4, 3, 4]]


def test_lim_keeps_what_follows_the_mean() -> None:
    lessons = Lim(theta=0.6).open(arms(5), CONTEXT)
    visited(lessons, ROWS)
    scores = lim_scores(np.array(ROWS, np.float64).T / 4)
    kept = np.flatnonzero(scores >= 0.6)
    assert 0 < len(kept) < 5
    shares = lessons.shares(asking(progress=0.3))
    assert np.flatnonzero(shares).tolist() == kept.tolist()
    assert np.allclose(shares[kept], 1 / len(kept))
    assert set(lessons.choose(asking(progress=0.9, count=20)).tolist()) == set(kept.tolist())
    assert np.allclose(lessons.shares(asking(progress=0.29, count=5)), 1 / 5)
    top = Lim(top=2).open(arms(5), CONTEXT)
    visited(top, ROWS)
    assert set(np.flatnonzero(top.shares(asking(progress=1.0)))) == set(np.argsort(-scores)[:2])


def test_lim_keeps_the_best_when_none_is_good_enough() -> None:
    lessons = Lim(theta=1.0).open(arms(5), CONTEXT)
    visited(lessons, ROWS)
    scores = lim_scores(np.array(ROWS, np.float64).T / 4)
    assert np.flatnonzero(lessons.shares(asking(progress=1.0))).tolist() == [int(np.argmax(scores))]
    unjudged = Lim().open(arms(3), CONTEXT)
    assert np.allclose(unjudged.shares(asking(progress=1.0)), 1 / 3)
    visited(unjudged, [[None, None, None]])
    assert np.allclose(unjudged.shares(asking(progress=1.0)), 1 / 3)


def test_historical_variance_keeps_what_changed_most() -> None:
    lessons = HistoricalVariance().open(arms(5), CONTEXT)
    visited(lessons, ROWS)
    assert lessons.choose(asking(progress=0.5, count=4)).tolist() == [2, 2, 2, 2]
    two = HistoricalVariance(top=2).open(arms(5), CONTEXT)
    visited(two, ROWS)
    assert np.flatnonzero(two.shares(asking(progress=0.5))).tolist() == [2, 3]
    aligned = HistoricalVariance(score="lim", top=1).open(arms(5), CONTEXT)
    visited(aligned, ROWS)
    scores = lim_scores(np.array(ROWS, np.float64).T / 4)
    assert np.flatnonzero(aligned.shares(asking(progress=0.5))).tolist() == [int(np.argmax(scores))]


def test_measuring_goes_epoch_by_epoch() -> None:
    lessons = Lim(share=1.0).open(arms(5), CONTEXT)
    assert np.allclose(lessons.shares(asking(count=3)), 1 / 5)
    first = lessons.choose(asking(count=3))
    assert len(set(first.tolist())) == 3
    lessons.update(first, [answered(arm, 1, 4) for arm in first.tolist()])
    left = np.delete(np.arange(5), first)
    second = lessons.choose(asking(count=3, stream=1))
    assert set(left.tolist()) < set(second.tolist())
    shares = lessons.shares(asking(count=3))
    assert np.allclose(shares[left], 1 / 3)
    assert np.allclose(shares[first], 1 / 9)
    assert np.allclose(lessons.shares(asking(count=8))[left], 2 / 8)
    assert lessons.history().shape == (5, 1)
    assert np.array_equal(lessons.history()[first, 0], [0.25, 0.25, 0.25])
    lessons.update(left, [answered(left[0], 1, 2), answered(left[0], 6, 6), Outcome(left[1], ())])
    assert lessons.history()[left[0], 0] == 7 / 8
    assert np.isnan(lessons.history()[left[1], 0])
    assert np.count_nonzero(~np.isnan(lessons.history())) == 4


def test_measuring_ends_early_with_its_epochs_and_later_visits_do_not_count() -> None:
    lessons = HistoricalVariance(share=0.9, epochs=3).open(arms(5), CONTEXT)
    visited(lessons, ROWS)
    assert lessons.choose(asking(progress=0.0, count=2)).tolist() == [2, 2]
    visited(lessons, [[0, 4, 4, 4, 0]] * 5)
    assert lessons.choose(asking(progress=0.0, count=2)).tolist() == [2, 2]


def test_what_is_learnt_from_does_not_move_the_selection() -> None:
    lessons = HistoricalVariance(share=0.2).open(arms(5), CONTEXT)
    visited(lessons, ROWS)
    for right in (4, 4, 4, 4, 4, 4):
        lessons.update(np.array([2]), [answered(2, right, 4)])
    assert lessons.history().shape == (5, 3)
    assert lessons.choose(asking(progress=0.5, count=2)).tolist() == [2, 2]


@pytest.mark.parametrize("bad", [{"share": 1.5}, {"theta": 1.1}, {"top": 0}, {"epochs": 0}])
def test_ranges_of_lim(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Lim(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [{"share": 1.5}, {"score": "range"}, {"top": 0}, {"epochs": 0}])
def test_ranges_of_historical_variance(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        HistoricalVariance(**bad)  # type: ignore[arg-type]
