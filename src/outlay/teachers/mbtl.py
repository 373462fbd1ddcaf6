"""MBTL: the few contexts to train on from which the rest is reached best, found by Bayesian optimisation."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, MissingExtra
from outlay.rng import derive
from outlay.schedules.base import require
from outlay.teachers.base import Asking, drawn
from outlay.teachers.task_space import places

#: weight of the deviation at the k-th choice: 1, 1 / (k + 1) or sqrt(ln(k + 1))
Beta = Literal["constant", "falling", "growing"]


@dataclass(frozen=True)
class Mbtl:
    """Trains on ``pieces`` contexts one after another, each for an equal piece of the budget, chosen by what evaluations on all contexts say.

    Performance on context j after training on i is taken to be J(i, j) = V(i) - slope |x_i - x_j|, V being a Gaussian process through what
    was observed at the contexts trained on (kernel constant times squared exponential, noise .1^2). The first context is the middle one. Then

        a(i) = mean over j of max(mu(i) + sqrt(beta) sd(i) - slope |x_i - x_j| - best(j), 0),   best(j) = max over trained s of J(s, j)

    is largest at the next, which is never one before; the first of equal ones; where all a(i) are 0, that of largest deviation.
    ``next`` is the method as published, for anyone's runs. As a teacher it trains one model on the contexts in turn, in place of a new model
    for each. A piece ends at the first evaluation at or after its share of the budget, and its last evaluation is what counts:
    performance = 1 - loss, so losses must be errors, in [0, 1]. Contexts that were not measured are left out of the mean.

    Args:
        pieces: contexts trained on, > 0; no more are chosen than there are.
        slope: performance lost per unit of distance in the space of tasks, >= 0; the code's .005 per index is .5 across 100 contexts.
            None estimates it: the slope, through 0, of |J(s, j) - J(s, s)| over |x_s - x_j| at the trained source nearest to each context.
        beta: ``constant`` 1, ``falling`` 1 / (k + 1), ``growing`` sqrt(ln(k + 1)) at the k-th choice, the first one being k = 1.
        greedy: whether to halve the largest gap in place of all this; at the ends of the range, to cut it at a third from the end.
        restarts: of the search for the kernel's parameters, >= 0.
    """

    title: ClassVar[str] = "MBTL"
    paper: ClassVar[Paper | None] = Paper("2408.04498", "Model-Based Transfer Learning for Contextual Reinforcement Learning", 2024)

    pieces: int = 10
    slope: float | None = 0.5
    beta: Beta = "constant"
    greedy: bool = False
    restarts: int = 9

    def __post_init__(self) -> None:
        require(self.pieces > 0, f"pieces must be > 0, found {self.pieces}")
        require(self.slope is None or self.slope >= 0, f"slope must be >= 0, found {self.slope}")
        require(self.beta in ("constant", "falling", "growing"), f"beta must be constant, falling or growing, found {self.beta!r}")
        require(self.restarts >= 0, f"restarts must be >= 0, found {self.restarts}")

    def next(self, places: FloatArray, observed: Mapping[int, FloatArray], seed: int = 0) -> int:
        """Return the number of the context to train on next.

        Args:
            places: where the contexts lie, (contexts, width).
            observed: for every context trained on so far, in order, the performance on all contexts, (contexts,); nan where not measured.
            seed: of the search for the kernel's parameters.

        Raises:
            InputError: when all have been trained on, or greedy cuts are asked for in more than one dimension.
            MissingExtra: when scikit-learn is not installed.
        """
        trained = list(observed)
        free = [context for context in range(len(places)) if context not in observed]
        if not free:
            raise InputError(f"all {len(places)} contexts have been trained on; take fewer pieces")
        if self.greedy and places.shape[1] > 1:
            raise InputError(f"greedy cuts take contexts on a line, found {places.shape[1]} dimensions; set greedy to false")
        middle = (places.min(axis=0) + places.max(axis=0)) / 2
        if not trained:
            return _closest(places, free, middle)
        if self.greedy:
            return _closest(places, free, np.array([_cut(np.sort(places[trained, 0]), float(places.min()), float(places.max()))]))
        wins, deviations = self.acquisition(places, observed, seed)
        scores = (wins if wins[free].max() > 0 else deviations)[free]
        return free[int(np.argmax(scores))]

    def acquisition(self, places: FloatArray, observed: Mapping[int, FloatArray], seed: int = 0) -> tuple[FloatArray, FloatArray]:
        """Return a(i), and the deviation of V(i), of every context, each (contexts,)."""
        table = np.array(list(observed.values()))
        trained = np.array(list(observed))
        distances = np.sqrt(((places[:, None] - places[None]) ** 2).sum(axis=2))
        own = table[np.arange(len(trained)), trained]
        known = ~np.isnan(own)
        mean, deviation = _process(places[trained[known]], own[known], places, self.restarts, seed)
        slope = estimated_slope(distances, trained, table) if self.slope is None else self.slope
        best = best_observed(table)
        measured = ~np.isnan(best)
        hoped = (mean + math.sqrt(self._beta(len(trained) + 1)) * deviation)[:, None] - slope * distances[:, measured] - best[measured]
        return np.maximum(hoped, 0).mean(axis=1) if measured.any() else np.zeros(len(places)), deviation

    def _beta(self, k: int) -> float:
        return {"constant": 1.0, "falling": 1 / (k + 1), "growing": math.sqrt(math.log(k + 1))}[self.beta]

    def open(self, arms: Sequence[Arm], context: Context) -> MbtlLessons:
        """Return lessons whose contexts are the arms.

        Raises:
            InputError: when an arm has no place, or greedy cuts are asked for in more than one dimension.
            MissingExtra: when scikit-learn is not installed.
        """
        found = places(arms, "mbtl")
        if not self.greedy:
            _need_processes()
        return MbtlLessons(self, found, context.seed, trained=[self.next(found, {})])


@dataclass
class MbtlLessons:
    """Remember which contexts have been trained on, the last being the present one, and what was observed after each."""

    teacher: Mbtl
    places: FloatArray
    seed: int
    trained: list[int]
    table: list[list[float]] = field(default_factory=list)  # one row for each context of which an evaluation has come

    def shares(self, asking: Asking) -> FloatArray:
        """Return 1 for the present context, 0 for the others."""
        return (np.arange(len(self.places)) == self.trained[-1]).astype(np.float64)

    def choose(self, asking: Asking) -> IntArray:
        """Return the present context."""
        return drawn(self.shares(asking), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Change nothing: evaluations alone are learnt from."""

    def examined(self, losses: FloatArray, progress: float) -> None:
        """Note the performance after the present context; go on to the next one when its piece has ended."""
        self.table = [*self.table[: len(self.trained) - 1], (1 - np.asarray(losses, np.float64)).tolist()]
        most = min(self.teacher.pieces, len(self.places))
        if len(self.trained) < most and progress >= len(self.trained) / most:
            observed = {context: np.array(row) for context, row in zip(self.trained, self.table, strict=True)}
            self.trained = [*self.trained, self.teacher.next(self.places, observed, derive(self.seed, "teachers/mbtl", len(self.trained)))]

    def state_dict(self) -> dict[str, Any]:
        """Return the contexts trained on and the evaluations."""
        return {"trained": list(self.trained), "table": [[None if math.isnan(x) else x for x in row] for row in self.table]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.trained = [int(context) for context in state["trained"]]
        self.table = [[math.nan if x is None else x for x in row] for row in state["table"]]


def best_observed(table: FloatArray) -> FloatArray:
    """Return the best performance observed on every context, (contexts,), of a table (trained, contexts); nan where none was measured."""
    return np.asarray(np.fmax.reduce(table, axis=0), np.float64)


def estimated_slope(distances: FloatArray, trained: IntArray, table: FloatArray) -> float:
    """Return the least squares slope, through 0, of |J(s, j) - J(s, s)| over the distance, s being the trained source nearest to j; 0 if unknown.

    Args:
        distances: between contexts, (contexts, contexts).
        trained: contexts trained on, (trained,).
        table: performance after each on every context, (trained, contexts).
    """
    source = np.argmin(distances[trained], axis=0)
    away = distances[trained[source], np.arange(len(distances))]
    lost = np.abs(table[source, np.arange(len(distances))] - table[source, trained[source]])
    use = ~np.isnan(lost) & (away > 0)
    return float((away[use] @ lost[use]) / (away[use] @ away[use])) if use.any() else 0.0


def _closest(places: FloatArray, free: list[int], wanted: FloatArray) -> int:
    return free[int(np.argmin(((places[free] - wanted) ** 2).sum(axis=1)))]


def _cut(trained: FloatArray, low: float, high: float) -> float:
    """Return where the largest gap is cut: half-way between two trained contexts, a third from an end of the range."""
    gaps = [(trained[0] - low, low + (trained[0] - low) / 3)]
    gaps += [(right - left, (left + right) / 2) for left, right in itertools.pairwise(trained)]
    gaps += [(high - trained[-1], trained[-1] + (high - trained[-1]) * 2 / 3)]
    return float(max(gaps, key=lambda gap: gap[0])[1])


def _need_processes() -> None:
    try:
        import sklearn.gaussian_process  # noqa: F401
    except ImportError:
        raise MissingExtra("scikit-learn", "tasks") from None


def _process(known: FloatArray, values: FloatArray, wanted: FloatArray, restarts: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return mean and deviation of a Gaussian process through known values; of its prior where none is known."""
    _need_processes()
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    # the code's bounds and starts, in the unit of its 100 indices: a length of 1 within .01 .. 100, a constant of 1 within .001 .. 1000
    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(0.01, (1e-4, 1.0))
    process = GaussianProcessRegressor(kernel, alpha=0.1**2, n_restarts_optimizer=restarts, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a kernel's parameter at its bound is no reason to stop a run
        if len(known):
            process.fit(known, values)
        mean, deviation = process.predict(wanted, return_std=True)
    return np.asarray(mean, np.float64), np.asarray(deviation, np.float64)
