"""Askings and outcomes for the tests of teachers."""

from collections.abc import Sequence

import numpy as np

from outlay.arms import Arm, Outcome
from outlay.context import Context
from outlay.rng import numpy_generator
from outlay.teachers import Asking

CONTEXT = Context(seed=7)


def asking(rates: Sequence[float] = (), count: int = 8, progress: float = 0.0, stream: int = 0) -> Asking:
    """Return what is asked with these rates."""
    return Asking(count, progress, np.array(rates, np.float64), np.ones(len(rates)), numpy_generator(0, "asked", stream))


def arms(count: int, size: int | None = None) -> list[Arm]:
    """Return arms of rising difficulty."""
    return [Arm(f"arm {i}", f"arm {i}", float(i), size) for i in range(count)]


def answered(arm: int, right: int, of: int) -> Outcome:
    """Return what came of a question with so many right answers."""
    return Outcome(arm, (1.0,) * right + (0.0,) * (of - right))


def used(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Return the arms of outcomes."""
    return np.array([one.arm for one in outcomes], np.int64)
