"""Class order: one class after another, central ones first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.schedules.base import require
from outlay.teachers.base import Asking, Stateless, drawn


@dataclass(frozen=True)
class ClassOrder:
    """Teaches each arm's class for an equal piece of the budget, in an order that starts with central classes and ends with classes like the
    first ones: classes of which distances to the others vary little come early, and what is learnt first is refreshed by what comes last.

    Distances are one less the cosine between prototypes. The paper's score of an order is not written down; chosen here is

        score = - sum over t of w_t v(c_t) / mean v - sum over t < n // 2 of w_t D(c_t, c_(n-1-t)) / mean D,   w_t = (n - 1 - t) / (n - 1)

    for n classes c_0 .. c_(n-1), v being the variance of a class's distances to the others. All orders are scored while they are no more than
    ``tries``, else as many random ones; the first of the best is taken.

    Args:
        prototypes: mean features of each arm's class by a pretrained model, equally many for each arm; empty for the arms' places.
        tries: most orders that are scored, > 0; 5040 are all of seven classes.
        take: ``best`` or, as a control, ``worst``.
    """

    title: ClassVar[str] = "Curriculum designer"
    paper: ClassVar[Paper | None] = Paper("2211.15470", "Learning to Learn: How to Continuously Teach Humans and Machines", 2022)

    prototypes: tuple[tuple[float, ...], ...] = ()
    tries: int = 5040
    take: Literal["best", "worst"] = "best"

    def __post_init__(self) -> None:
        require(self.tries > 0, f"tries must be > 0, found {self.tries}")
        require(self.take in ("best", "worst"), f"take must be best or worst, found {self.take!r}")

    def open(self, arms: Sequence[Arm], context: Context) -> ClassOrderLessons:
        """Return the lessons; random orders are drawn from a named stream of the run's seed.

        Raises:
            InputError: when there are not as many prototypes as arms, when they differ in length, or when one is empty or all 0.
        """
        prototypes = self.prototypes or tuple(arm.point for arm in arms)
        if len(prototypes) != len(arms):
            raise InputError(f"class_order takes one prototype for each of {len(arms)} arms, found {len(prototypes)}")
        for arm, prototype in zip(arms, prototypes, strict=True):
            if len(prototype) != len(prototypes[0]) or not any(prototype):
                raise InputError(
                    f"class_order goes by prototypes, equally many numbers for every arm and not all 0, but {arm.name!r} has {prototype}"
                )
        ranked = ranked_orders(
            cosine_distances(np.array(prototypes, np.float64)), self.tries, numpy_generator(context.seed, "teachers/class_order")
        )
        return ClassOrderLessons(ranked[0 if self.take == "best" else -1])


@dataclass
class ClassOrderLessons(Stateless):
    """Know the order."""

    order: IntArray

    def shares(self, asking: Asking) -> FloatArray:
        """Return 1 for the class whose piece this is, 0 for the others."""
        place = min(int(asking.progress * len(self.order)), len(self.order) - 1)
        return (np.arange(len(self.order)) == self.order[place]).astype(np.float64)

    def choose(self, asking: Asking) -> IntArray:
        """Return the class whose piece this is."""
        return drawn(self.shares(asking), asking)


def cosine_distances(prototypes: FloatArray) -> FloatArray:
    """Return 1 - cosine between every two prototypes, (classes, classes)."""
    units = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
    distances = 1 - units @ units.T
    np.fill_diagonal(distances, 0.0)
    return np.maximum((distances + distances.T) / 2, 0.0)


def order_scores(distances: FloatArray, orders: IntArray) -> FloatArray:
    """Return the score of every order, (orders,), larger being better.

    Args:
        distances: between classes, (classes, classes), symmetric and 0 on the diagonal.
        orders: numbers of the classes, (orders, classes).
    """
    classes = len(distances)
    if classes < 2:
        return np.zeros(len(orders))
    others = distances[~np.eye(classes, dtype=bool)].reshape(classes, classes - 1)
    variances, weights, half = others.var(axis=1), 1 - np.arange(classes) / (classes - 1), classes // 2
    spread = variances[orders] @ weights / max(variances.mean(), 1e-12)
    return_to = distances[orders[:, :half], orders[:, ::-1][:, :half]] @ weights[:half] / max(others.mean(), 1e-12)
    return np.asarray(-spread - return_to, np.float64)


def ranked_orders(distances: FloatArray, tries: int, rng: np.random.Generator) -> IntArray:
    """Return orders of the classes, best first, (orders, classes): all of them while no more than ``tries``, else as many random ones."""
    classes = len(distances)
    if math.factorial(classes) <= tries:
        orders = np.array(list(itertools.permutations(range(classes))), np.int64)
    else:
        orders = np.array([rng.permutation(classes) for _ in range(tries)], np.int64)
    return orders[np.argsort(-order_scores(distances, orders), kind="stable")]
