"""Image sets: shapes, fixed disjoint splits, and the scale of the training side."""

from __future__ import annotations

import numpy as np
import pytest

from outlay.errors import InputError
from outlay.tasks.fetch import Unavailable
from outlay.tasks.images import IMAGES, Arrays, _arrays, load

# name: training shape, test shape, first training labels
EXPECTED = {
    "digits": ((1437, 8, 8), (360, 8, 8), None),
    "mnist": ((60000, 28, 28), (10000, 28, 28), [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]),
    "mnist1d": ((4000, 40), (1000, 40), None),
}


def loaded(name: str) -> Arrays:
    if name == "digits":
        pytest.importorskip("sklearn")
    if name == "mnist1d":
        pytest.importorskip("scipy")
    try:
        return load(name)
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", IMAGES)
def test_shapes_types_split_and_scale(name: str) -> None:
    arrays = loaded(name)
    train_shape, test_shape, labels = EXPECTED[name]
    assert arrays.train_x.shape == train_shape and arrays.test_x.shape == test_shape and arrays.shape == train_shape[1:]
    assert arrays.train_y.shape == train_shape[:1] and arrays.test_y.shape == test_shape[:1]
    assert {arrays.train_x.dtype, arrays.test_x.dtype} == {np.dtype(np.float32)}
    assert {arrays.train_y.dtype, arrays.test_y.dtype} == {np.dtype(np.int64)}
    assert set(arrays.train_y) == set(arrays.test_y) == set(range(arrays.classes))
    assert abs(arrays.train_x.mean(dtype=np.float64)) < 1e-5 and abs(arrays.train_x.std(dtype=np.float64) - 1) < 1e-5
    assert labels is None or arrays.train_y[:10].tolist() == labels
    seen = {row.tobytes() for row in arrays.train_x}
    assert not any(row.tobytes() in seen for row in arrays.test_x)


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_the_split_is_fixed_and_global_randomness_untouched(name: str) -> None:
    before = loaded(name)
    state = np.random.get_state()[1].copy()
    np.random.seed(7)
    again = load(name)
    assert np.array_equal(before.train_x, again.train_x) and np.array_equal(before.test_y, again.test_y)
    assert np.random.randint(2**30) == np.random.RandomState(7).randint(2**30)
    np.random.set_state(("MT19937", state, 624, 0.0, 0.0))


def test_digits_loses_no_example() -> None:
    arrays = loaded("digits")
    from sklearn.datasets import load_digits

    counts = np.bincount(arrays.train_y) + np.bincount(arrays.test_y)
    assert counts.tolist() == np.bincount(load_digits().target).tolist()


def test_mnist1d_has_five_hundred_signals_a_class() -> None:
    arrays = loaded("mnist1d")
    assert (np.bincount(arrays.train_y) + np.bincount(arrays.test_y)).tolist() == [500] * 10


def test_the_test_side_is_scaled_by_the_training_side() -> None:
    train, test = np.array([[0, 2], [2, 0]], np.uint8), np.array([[5, 1]], np.uint8)
    arrays = _arrays(train, np.array([0, 1], np.uint8), test, np.array([1], np.uint8), 2)
    assert arrays.train_x.tolist() == [[-1, 1], [1, -1]]  # mean 1, deviation 1
    assert arrays.test_x.tolist() == [[4, 0]]


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        load("mnits")
