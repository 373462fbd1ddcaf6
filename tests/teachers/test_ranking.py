"""Ranking curricula: weights, eases and what is drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.teachers import Asking
from outlay.teachers.ranking import (
    FLOOR,
    Ranking,
    normalised_score,
    pairwise_ease,
    pointwise_ease,
    reciprocal_rank,
    score_quantile,
    weighted,
)
from outlay.testing.teachers import check_teacher

EASE = np.array([0.0, 0.25, 1.0])


def asking(progress: float) -> Asking:
    return Asking(4, progress, np.zeros(1), np.zeros(1), numpy_generator(0, "test"))


@pytest.mark.parametrize("anti", [False, True])
def test_contract(anti: bool) -> None:
    check_teacher(Ranking(anti=anti), steps=3, long=10)


def test_weights_go_from_ease_to_one() -> None:
    np.testing.assert_allclose(weighted(EASE, 0, 20), EASE + FLOOR, rtol=0, atol=1e-15)
    np.testing.assert_allclose(weighted(EASE, 5, 20), [0.25 + FLOOR, 0.4375 + FLOOR, 1 + FLOOR])
    for spent in (20, 21, 100):
        assert weighted(EASE, spent, 20).tolist() == [1 + FLOOR] * 3


@given(ease=st.floats(0, 1), first=st.floats(0, 30), more=st.floats(0, 30))
def test_weights_rise_and_keep_between_ease_and_one(ease: float, first: float, more: float) -> None:
    early, late = (float(weighted(np.array([ease]), spent, 20)[0]) for spent in (first, first + more))
    assert ease <= early <= late + 1e-12 and late <= 1 + 2 * FLOOR


def arms(*difficulties: float | None) -> list[Arm]:
    return [Arm(str(i), difficulty=difficulty) for i, difficulty in enumerate(difficulties)]


def test_arms_are_drawn_by_their_weights() -> None:
    lessons = Ranking(until=0.5).open(arms(10.0, 20.0, 30.0), Context(0))
    np.testing.assert_allclose(lessons.shares(asking(0.0)), [2 / 3, 1 / 3, 0], atol=1e-7)
    np.testing.assert_allclose(lessons.shares(asking(0.25)), np.array([1, 0.75, 0.5]) / 2.25, atol=1e-7)
    np.testing.assert_allclose(lessons.shares(asking(0.5)), [1 / 3] * 3)
    anti = Ranking(until=0.5, anti=True).open(arms(10.0, 20.0, 30.0), Context(0))
    np.testing.assert_allclose(anti.shares(asking(0.25)), np.array([0.5, 0.75, 1]) / 2.25, atol=1e-7)


@pytest.mark.parametrize("anti", [False, True])
def test_equal_ease_is_uniform_throughout(anti: bool) -> None:
    lessons = Ranking(anti=anti).open(arms(2.0, 2.0), Context(0))
    for progress in (0.0, 0.3, 1.0):
        assert lessons.shares(asking(progress)).tolist() == [0.5, 0.5]


def test_eases_of_a_first_ranker() -> None:
    assert reciprocal_rank(np.array([1.0, 4.0, np.nan])).tolist() == [1, 0.25, 0.001]
    assert normalised_score(np.array([2.0, 6.0, 3.0])).tolist() == [0, 1, 0.25]
    assert normalised_score(np.array([2.0, 2.0])).tolist() == [1, 1]
    assert pointwise_ease(np.array([0.9, 0.9]), [True, False]).tolist() == pytest.approx([0.9, 0.1])
    assert pairwise_ease(0.75, np.array([0.25, 0.5])) == 0.625
    assert pairwise_ease(1.0, np.array([0.0])) == 1 and pairwise_ease(0.0, np.array([1.0, 0.0])) == 0


def test_quantiles_are_those_of_the_kernel_estimate() -> None:
    stats = pytest.importorskip("scipy.stats")
    scores = np.random.default_rng(0).gamma(2.0, size=30)
    estimate = stats.gaussian_kde(scores)
    np.testing.assert_allclose(score_quantile(scores), [estimate.integrate_box_1d(-np.inf, score) for score in scores], atol=1e-9)
    assert score_quantile(np.array([3.0])).tolist() == [0.5] and score_quantile(np.array([3.0, 3.0])).tolist() == [0.5, 0.5]


def test_refusals() -> None:
    for until in (0.0, 1.5):
        with pytest.raises(ValueError, match="until"):
            Ranking(until=until)
    with pytest.raises(InputError, match="ranking goes by difficulty, but the arm '1'"):
        Ranking().open(arms(1.0, None), Context(0))


def fitted_scores(weights: np.ndarray, features: np.ndarray, labels: np.ndarray, passes: int = 12) -> np.ndarray:
    w = np.zeros(features.shape[1])
    for step in range(passes):
        p = 1 / (1 + np.exp(-features @ w))
        w += 1.0 * (weights[step] * (labels - p)) @ features / len(labels)
    return w


def test_noise_that_grows_with_difficulty_is_learnt_less_of() -> None:
    """A line is learnt from labels of which the hard are often wrong, in equally many passes."""
    found: dict[str, list[float]] = {"curriculum": [], "uniform": [], "anti": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, features, ease = rng.standard_normal(10), rng.standard_normal((300, 10)), rng.random(300)
        labels = ((features @ truth > 0) ^ (rng.random(300) < 0.5 * (1 - ease))).astype(float)
        for name, e in (("curriculum", ease), ("uniform", np.ones(300)), ("anti", 1 - ease)):
            w = fitted_scores(np.array([weighted(e, step, 20) for step in range(12)]), features, labels)
            found[name].append(float(w @ truth / np.linalg.norm(w) / np.linalg.norm(truth)))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    assert means["curriculum"] > means["uniform"] > means["anti"], means
