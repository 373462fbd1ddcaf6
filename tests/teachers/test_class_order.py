"""Class order: scores by hand, relabelling, and the walk."""

import itertools

import numpy as np
import pytest

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.teachers import Asking
from outlay.teachers.class_order import ClassOrder, cosine_distances, order_scores, ranked_orders
from outlay.testing.teachers import check_teacher


def asking(progress: float, count: int = 2) -> Asking:
    return Asking(count, progress, np.zeros(1), np.zeros(1), numpy_generator(0, "test"))


def made(classes: int, seed: int = 0) -> np.ndarray:
    return cosine_distances(np.random.default_rng(seed).standard_normal((classes, 6)))


def test_contract() -> None:
    check_teacher(ClassOrder(), steps=3, long=10)


def test_distances_by_hand() -> None:
    found = cosine_distances(np.array([[1.0, 0.0], [2.0, 2.0], [0.0, -3.0]]))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found, [[0, 1 - half, 1], [1 - half, 0, 1 + half], [1, 1 + half, 0]], atol=1e-12)


def test_scores_by_hand() -> None:
    distances = np.array([[0, 1, 2, 3], [1, 0, 1, 1], [2, 1, 0, 6], [3, 1, 6, 0]], np.float64)
    variances = np.array([np.var([1, 2, 3]), np.var([1, 1, 1]), np.var([2, 1, 6]), np.var([3, 1, 6])])
    order = [1, 3, 0, 2]
    spread = (variances[1] * 1 + variances[3] * 2 / 3 + variances[0] / 3) / variances.mean()
    ends = (distances[1, 2] * 1 + distances[3, 0] * 2 / 3) / (14 / 6)
    np.testing.assert_allclose(order_scores(distances, np.array([order])), [-spread - ends])


def test_central_classes_come_first_and_what_is_like_the_first_comes_last() -> None:
    same_spread = np.array([[0, 0.2, 1, 1], [0.2, 0, 1, 1], [1, 1, 0, 0.2], [1, 1, 0.2, 0]])
    best = ranked_orders(same_spread, 24, np.random.default_rng(0))[0]
    assert same_spread[best[0], best[3]] == 0.2 and same_spread[best[1], best[2]] == 0.2
    even = np.ones((4, 4)) - np.eye(4)
    even[1:, 1:] += np.array([[0, 0.8, 0.8], [0.8, 0, 0], [0.8, 0, 0]])
    assert ranked_orders(even, 24, np.random.default_rng(0))[0][0] == 0  # equally far from all


def test_relabelling_changes_nothing() -> None:
    distances, names = made(5), np.array([3, 0, 4, 1, 2])
    orders = np.array(list(itertools.permutations(range(5))))
    renamed = distances[np.ix_(names, names)]
    np.testing.assert_allclose(order_scores(renamed, orders), order_scores(distances, names[orders]))
    best, other = ranked_orders(distances, 120, np.random.default_rng(0))[0], ranked_orders(renamed, 120, np.random.default_rng(0))[0]
    assert np.array_equal(names[other], best)


def test_all_orders_of_few_classes_and_random_ones_of_many() -> None:
    few = ranked_orders(made(4), 24, np.random.default_rng(0))
    assert len({tuple(order) for order in few.tolist()}) == 24
    assert np.all(np.diff(order_scores(made(4), few)) <= 0)
    many = ranked_orders(made(9), 50, np.random.default_rng(0))
    assert many.shape == (50, 9) and np.all(np.sort(many, axis=1) == np.arange(9))
    assert np.all(np.diff(order_scores(made(9), many)) <= 0)
    assert order_scores(np.zeros((1, 1)), np.array([[0]])).tolist() == [0]
    assert np.all(np.isfinite(order_scores(np.zeros((3, 3)), np.array([[0, 1, 2]]))))


def test_each_class_gets_an_equal_piece() -> None:
    points = ((1.0, 0.1), (0.6, 0.6), (0.1, 1.0))
    lessons = ClassOrder().open([Arm(str(i), point=point) for i, point in enumerate(points)], Context(0))
    order = ranked_orders(cosine_distances(np.array(points)), 6, np.random.default_rng(0))[0].tolist()
    walked = [int(lessons.shares(asking(progress)).argmax()) for progress in (0, 0.33, 0.34, 0.66, 0.67, 1.0)]
    assert walked == [order[0], order[0], order[1], order[1], order[2], order[2]]
    assert lessons.shares(asking(0.5)).sum() == 1 and lessons.choose(asking(0.5)).tolist() == [order[1]] * 2
    worst = ClassOrder(prototypes=points, take="worst").open([Arm(str(i)) for i in range(3)], Context(0))
    assert worst.order.tolist() == ranked_orders(cosine_distances(np.array(points)), 6, np.random.default_rng(0))[-1].tolist()


def test_random_orders_follow_the_seed() -> None:
    arms = [Arm(str(i), point=tuple(np.random.default_rng(i).random(4))) for i in range(9)]
    orders = [ClassOrder(tries=5).open(arms, Context(seed)).order.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_refusals() -> None:
    arms = [Arm("a"), Arm("b")]
    with pytest.raises(ValueError, match="tries"):
        ClassOrder(tries=0)
    with pytest.raises(ValueError, match="take"):
        ClassOrder(take="any")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'a' has"):
        ClassOrder().open(arms, Context(0))
    with pytest.raises(InputError, match="one prototype for each of 2"):
        ClassOrder(prototypes=((1.0,),)).open(arms, Context(0))
    for wrong in (((1.0,), (1.0, 2.0)), ((1.0,), (0.0,))):
        with pytest.raises(InputError, match="'b' has"):
            ClassOrder(prototypes=wrong).open(arms, Context(0))
