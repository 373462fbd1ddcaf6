import numpy as np
import pytest
from asked import CONTEXT, arms, asking

from outlay.teachers import Cures


def test_weights_by_hand() -> None:
    lessons = Cures(tau=0.25).open(arms(4), CONTEXT)
    weights = lessons.weights(np.array([0.0, 1.0, 0.1, np.nan]))
    scores = np.exp(np.array([0.0, 0.0, 0.3, 0.5]) / 0.25)
    assert np.allclose(weights, scores / scores.sum())
    assert np.allclose(lessons.shares(asking([0.0, 1.0, 0.1, np.nan])), weights)


def test_hot_is_even() -> None:
    assert np.allclose(Cures(tau=1e9).open(arms(3), CONTEXT).weights(np.array([0.0, 0.5, 0.9])), 1 / 3, atol=1e-8)


def test_single_questions_are_drawn_without_replacement() -> None:
    rates = [0.5, 0.5, 0.0, 1.0]
    chosen = Cures(tau=0.05).open(arms(4, size=1), CONTEXT).choose(asking(rates, count=4))
    assert sorted(chosen.tolist()) == [0, 1, 2, 3]
    among = Cures(tau=0.05).open(arms(4), CONTEXT).choose(asking(rates, count=200))
    counts = np.bincount(among, minlength=4)
    assert counts[:2].sum() > 190


def test_ranges() -> None:
    with pytest.raises(ValueError, match="must be"):
        Cures(tau=0.0)
