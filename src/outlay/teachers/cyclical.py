"""Cyclical: the number of arms that are learnt from swings between a part and all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.rng import numpy_generator
from outlay.schedules.base import require
from outlay.teachers.base import Asking, Stateless, drawn_without


@dataclass(frozen=True)
class Cyclical:
    """The stage is divided into passes of sizes S_k, each as long as its size; a pass learns evenly from floor(S_k arms) arms that are drawn
    without replacement with p proportional to their ease.

    Ease is the estimated success rate; where none is known it is the mean of those that are. The paper takes it from a model that was trained
    before; here it follows the run, so that the set of a pass changes where the estimates do: its random numbers are those of the pass.

    Args:
        start: smallest size, as a share of the arms, in (0, ``end``].
        end: largest size, in [``start``, 1].
        alpha: factor between neighbouring sizes, in (0, 1).
        epochs: sum that the sizes reach, in passes over all arms, > 0. The paper takes as many as the plain training has.
    """

    title: ClassVar[str] = "Cyclical curriculum"
    paper: ClassVar[Paper | None] = Paper("2202.05531", "Cyclical Curriculum Learning", 2022)

    start: float = 0.25
    end: float = 1.0
    alpha: float = 0.5
    epochs: float = 10.0

    def __post_init__(self) -> None:
        require(0 < self.start <= self.end <= 1, f"sizes must be 0 < start <= end <= 1, found {self.start} and {self.end}")
        require(0 < self.alpha < 1, f"alpha must be in (0, 1), found {self.alpha}")
        require(self.epochs > 0, f"epochs must be > 0, found {self.epochs}")

    def open(self, arms: Sequence[Arm], context: Context) -> CyclicalLessons:
        """Return the lessons; sets are drawn from streams of ``context.seed``."""
        return CyclicalLessons(cycle_sizes(self.start, self.end, self.alpha, self.epochs), len(arms), context.seed)


def cycle_sizes(sp: float, ep: float, alpha: float, epochs: float) -> list[float]:
    """Return sizes that start at ``sp``, grow by 1 / alpha up to ``ep``, shrink by alpha down to ``sp``, and so on until they sum to ``epochs``.

    Args:
        sp: smallest size, > 0.
        ep: largest size, >= ``sp``.
        alpha: factor, in (0, 1).
        epochs: least sum; the sum of what is returned is below ``epochs`` + ``ep``.
    """
    sizes, growing = [sp], True
    while sum(sizes) < epochs:
        last = sizes[-1]
        growing = last == sp or (growing and last != ep)
        sizes.append(min(last / alpha, ep) if growing else max(last * alpha, sp))
    return sizes


@dataclass
class CyclicalLessons(Stateless):
    """Remember nothing: the pass follows from progress and its set from the estimates."""

    sizes: list[float]
    arms: int
    seed: int

    def taken(self, asking: Asking) -> IntArray:
        """Return the arms of the present pass, (taken,), ascending."""
        ends = np.cumsum(self.sizes)
        number = min(int(np.searchsorted(ends, asking.progress * ends[-1], side="right")), len(self.sizes) - 1)
        # the small number keeps floor(0.29 * 100) at 29
        wanted = max(int(self.arms * self.sizes[number] + 1e-9), 1)
        clocks = numpy_generator(self.seed, "teachers/cyclical", number).exponential(size=self.arms) / ease(asking.rates)
        return np.sort(np.argsort(clocks, kind="stable")[:wanted]).astype(np.int64)

    def shares(self, asking: Asking) -> FloatArray:
        """Return equal shares of the arms of the present pass."""
        taken = self.taken(asking)
        found = np.zeros(self.arms)
        found[taken] = 1 / len(taken)
        return found

    def choose(self, asking: Asking) -> IntArray:
        """Return arms of the present pass in rounds of random order."""
        return drawn_without(self.shares(asking), asking)


def ease(rates: FloatArray) -> FloatArray:
    """Return the weight of every arm in a set: its rate, at least 1e-6; the mean of the known ones where it is unknown, 1 where none is."""
    known = rates[~np.isnan(rates)]
    return np.maximum(np.where(np.isnan(rates), known.mean() if len(known) else 1.0, rates), 1e-6)
