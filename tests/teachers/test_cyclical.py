import numpy as np
import pytest
from asked import CONTEXT, arms, asking
from hypothesis import given
from hypothesis import strategies as st

from outlay.context import Context
from outlay.teachers import Cyclical
from outlay.teachers.cyclical import cycle_sizes, ease


def test_the_sizes_of_the_paper() -> None:
    assert cycle_sizes(0.25, 1.0, 0.5, 3.4) == [0.25, 0.5, 1.0, 0.5, 0.25, 0.5, 1.0]
    assert cycle_sizes(0.25, 1.0, 0.5, 0.2) == [0.25]
    assert cycle_sizes(1.0, 1.0, 0.5, 3.0) == [1.0, 1.0, 1.0]
    # neither end is a power of the factor
    assert cycle_sizes(0.3, 0.7, 0.5, 3.0) == pytest.approx([0.3, 0.6, 0.7, 0.35, 0.3, 0.6, 0.7])


@given(st.floats(0.05, 1), st.floats(0, 1), st.floats(0.05, 0.95), st.floats(0.01, 30))
def test_the_sum_of_sizes(start: float, more: float, alpha: float, epochs: float) -> None:
    end = start + more * (1 - start)
    sizes = cycle_sizes(start, end, alpha, epochs)
    assert sum(sizes) >= epochs
    assert sum(sizes[:-1]) < epochs
    assert all(start <= size <= end for size in sizes)


def test_passes_last_as_long_as_their_sizes() -> None:
    lessons = Cyclical(epochs=3.0).open(arms(8), CONTEXT)
    assert lessons.sizes == [0.25, 0.5, 1.0, 0.5, 0.25, 0.5]
    rates = [0.5] * 8
    starts = np.cumsum([0.0, *lessons.sizes]) / 3.0
    for start, end, size in zip(starts, starts[1:], lessons.sizes, strict=False):
        for progress in (start + 1e-9, end - 1e-9):
            shares = lessons.shares(asking(rates, progress=progress))
            assert np.count_nonzero(shares) == 8 * size
            assert np.allclose(shares[shares > 0], 1 / (8 * size))
    assert np.count_nonzero(lessons.shares(asking(rates, progress=1.0))) == 4
    early, late = (lessons.shares(asking(rates, progress=p)) for p in (0.0, 0.08))
    assert np.array_equal(early, late)
    assert not np.array_equal(lessons.shares(asking(rates, progress=0.2)), lessons.shares(asking(rates, progress=0.7)))


def test_sets_are_drawn_in_proportion_to_ease() -> None:
    rates = [0.6, 0.3, 0.1, 0.0]
    first = np.zeros(4)
    for seed in range(600):
        first += Cyclical().open(arms(4), Context(seed=seed)).shares(asking(rates))
    assert np.abs(first / 600 - [0.6, 0.3, 0.1, 0.0]).max() < 0.06
    assert np.allclose(Cyclical(start=1.0).open(arms(4), CONTEXT).shares(asking(rates)), 1 / 4)
    assert np.allclose(ease(np.array([0.2, np.nan, 0.6, 0.0])), [0.2, 0.8 / 3, 0.6, 1e-6])
    assert np.allclose(ease(np.full(2, np.nan)), 1.0)


def test_a_pass_has_one_arm_at_least_and_rounds_down() -> None:
    assert np.count_nonzero(Cyclical(start=0.01).open(arms(5), CONTEXT).shares(asking([0.5] * 5))) == 1
    # 100 * 0.29 is a little below 29
    assert np.count_nonzero(Cyclical(start=0.29).open(arms(100), CONTEXT).shares(asking([0.5] * 100))) == 29
    assert np.count_nonzero(Cyclical(start=0.39).open(arms(10), CONTEXT).shares(asking([0.5] * 10))) == 3


@pytest.mark.parametrize("bad", [{"start": 0.0}, {"start": 0.9, "end": 0.8}, {"end": 1.1}, {"alpha": 1.0}, {"alpha": 0.0}, {"epochs": 0.0}])
def test_ranges(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Cyclical(**bad)
