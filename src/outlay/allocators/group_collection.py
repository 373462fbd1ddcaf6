"""Group collection: examples for the groups of a data set, so that all are served as well as money allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from outlay.allocators.base import Bound, Claims
from outlay.allocators.solver import greedy, largest_remainder
from outlay.arms import FloatArray, IntArray
from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.schedules.base import require


@dataclass(frozen=True)
class GroupCollection:
    """Examples n_g for the least sum of w_g a_g n_g^(-exponent): n_g in proportion to (w_g a_g / c_g)^(1 / (exponent + 1)).

    Or for the least loss of the worst group: n_g in proportion to a_g^(1 / exponent), at which all losses are equal. The scale of a group's
    learning curve a_g is its share of wrong answers, 1 - p, with an unknown rate taken as 1/2; w_g is its size and c_g its cost, 1 where
    there are none. The equations follow from the paper's problem; its own numbers are not published in its abstract. What to buy next when
    curves must be learnt on the way says ``Collection``.

    Args:
        exponent: how fast losses fall with examples, > 0; 1 for errors that are variances.
        worst: whether the worst group counts instead of the sum.
    """

    title: ClassVar[str] = "Learning curves of groups"
    paper: ClassVar[Paper | None] = Paper("2202.01327", "Adaptive Sampling Strategies to Construct Equitable Training Datasets", 2022)
    needs_norms: ClassVar[bool] = False
    probe: ClassVar[int] = 0

    exponent: float = 1.0
    worst: bool = False

    def __post_init__(self) -> None:
        require(0 < self.exponent < math.inf, f"exponent must be > 0, found {self.exponent}")

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        """Return the division."""
        scales = 1 - np.where(np.isnan(claims.rates), 0.5, claims.rates)
        if self.worst:
            weights = scales ** (1 / self.exponent)
        else:
            sizes = np.ones(len(claims)) if claims.sizes is None else claims.sizes
            costs = np.ones(len(claims)) if claims.costs is None else claims.costs
            weights = (sizes * scales / costs) ** (1 / (self.exponent + 1))
        return largest_remainder(weights, total, low=low, high=high)


@dataclass(frozen=True)
class LearningCurve:
    """Loss after n examples: L(n) = scale n^(-exponent) + floor; without end at n = 0.

    Args:
        scale: a, >= 0.
        exponent: p, > 0.
        floor: e, what no number of examples takes away, >= 0.
    """

    scale: float
    exponent: float = 1.0
    floor: float = 0.0

    def loss(self, count: float) -> float:
        """Return L(count)."""
        return self.scale * count**-self.exponent + self.floor if count > 0 else math.inf


def closed_form(
    scales: FloatArray, money: float, exponent: float = 1.0, weights: FloatArray | None = None, costs: FloatArray | None = None
) -> FloatArray:
    """Return the real-valued n_g that minimise sum w_g a_g n_g^(-p) at sum c_g n_g = money, all with one exponent:
    n_g = money (w_g a_g / c_g)^(1 / (p + 1)) / sum_h c_h (w_h a_h / c_h)^(1 / (p + 1)).

    Args:
        scales: a_g >= 0, not all 0; with exponent 1 the variances of Neyman's division.
        money: to spend, >= 0.
        exponent: p > 0.
        weights: w_g >= 0; None for equal ones.
        costs: c_g > 0 of one example; None for 1.
    """
    prices = np.ones(len(scales)) if costs is None else costs
    parts = ((1.0 if weights is None else weights) * scales / prices) ** (1 / (exponent + 1))
    return np.asarray(money * parts / np.sum(prices * parts), np.float64)


def best_counts(
    curves: Sequence[LearningCurve],
    money: float,
    *,
    weights: FloatArray | None = None,
    costs: FloatArray | None = None,
    low: FloatArray | None = None,
    high: FloatArray | None = None,
) -> FloatArray:
    """Return the real-valued n_g in [low, high] that minimise sum w_g L_g(n_g) at sum c_g n_g = money, each curve with its own exponent:
    n_g = (w_g a_g p_g / (lambda c_g))^(1 / (p_g + 1)) with the one lambda that spends the money. All of ``high`` where money is left then.

    Args:
        curves: one a group.
        money: to spend in all, >= 0.
        weights: w_g >= 0; None for equal ones.
        costs: c_g > 0 of one example; None for 1.
        low: examples that are there already; None for none.
        high: examples that there are; None without end.

    Raises:
        InputError: when what is there already costs more.
    """
    groups = len(curves)
    prices = np.ones(groups) if costs is None else costs
    lows = np.zeros(groups) if low is None else np.asarray(low, np.float64)
    highs = np.full(groups, np.inf) if high is None else np.asarray(high, np.float64)
    if np.sum(prices * lows) > money:
        raise InputError(f"{money} does not pay for what is there already, which costs {np.sum(prices * lows)}")
    exponents = np.array([curve.exponent for curve in curves])
    worths = np.array([curve.scale * curve.exponent for curve in curves]) * (1.0 if weights is None else weights) / prices
    with np.errstate(divide="ignore"):
        logs = np.log(worths)

    def at(price: float) -> FloatArray:
        return np.clip(np.exp(np.minimum((logs - price) / (exponents + 1), 700.0)), lows, highs)

    left, right = -2000.0, 2000.0  # of log lambda: what is spent falls with it
    for _ in range(200):
        middle = (left + right) / 2
        if float(np.sum(prices * at(middle))) > money:
            left = middle
        else:
            right = middle
    return at(right)


def greedy_counts(
    curves: Sequence[LearningCurve],
    total: int,
    *,
    weights: FloatArray | None = None,
    costs: FloatArray | None = None,
    low: Bound = 0,
    high: Bound | None = None,
) -> IntArray:
    """Return whole n_g that sum to ``total``: one example after another for the group with the largest w_g (L_g(n) - L_g(n + 1)) / c_g.
    With equal costs no other whole numbers have a smaller sum of w_g L_g(n_g).

    Raises:
        InputError: when no division lies within the bounds.
    """
    factors = ((np.ones(len(curves)) if weights is None else weights) / (1.0 if costs is None else costs)).tolist()
    return greedy(lambda g, n: factors[g] * (curves[g].loss(n) - curves[g].loss(n + 1)), len(curves), total, low=low, high=high)


def worst_first(curves: Sequence[LearningCurve], total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
    """Return whole n_g that sum to ``total``: one example after another for the group whose loss is largest, which ends with losses that
    are equal to within the gain of one example.

    Raises:
        InputError: when no division lies within the bounds.
    """
    return greedy(lambda g, n: curves[g].loss(n), len(curves), total, low=low, high=high)


def fit_curve(counts: Sequence[float], losses: Sequence[float]) -> LearningCurve | None:
    """Return the learning curve through measured losses, by least squares of log(loss - e) = log a - p log n for every e on a grid of [0, least
    loss) and the e at which the logarithms of the losses are met best. None where that says nothing: fewer than three different counts, a
    loss that is not > 0, or losses that do not fall.

    Args:
        counts: examples that each was measured with, > 0.
        losses: what was measured.
    """
    n, loss = np.asarray(counts, np.float64), np.asarray(losses, np.float64)
    if len(np.unique(n)) < 3 or np.any(n <= 0) or not np.all(np.isfinite(loss)) or np.any(loss <= 0):
        return None
    centred = np.log(n) - np.mean(np.log(n))
    best: tuple[float, LearningCurve] | None = None
    for floor in (float(np.min(loss)) * np.linspace(0, 0.995, 200)).tolist():
        logs = np.log(loss - floor)
        exponent = -float(np.sum(centred * logs) / np.sum(centred**2))
        scale = math.exp(float(np.mean(logs)) + exponent * float(np.mean(np.log(n))))
        if exponent > 1e-6:
            miss = float(np.sum((np.log(scale * n**-exponent + floor) - np.log(loss)) ** 2))
            if best is None or miss < best[0]:
                best = miss, LearningCurve(scale, exponent, floor)
    return best[1] if best else None


def next_group(owned: IntArray, targets: FloatArray, open_to: NDArray[np.bool_]) -> int:
    """Return the group that is furthest below its target, by owned / target, the first among equals; -1 where none is open.

    Args:
        owned: examples of each group, (groups,).
        targets: examples that each should have in the end, >= 0.
        open_to: which groups can still be bought from, as truths.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        reached = np.where(targets > 0, owned / targets, np.inf)
    reached = np.where(open_to, reached, np.nan)
    return int(np.nanargmin(reached)) if not np.all(np.isnan(reached)) else -1


@dataclass
class Collection:
    """A collection that goes on while its learning curves are learnt: ``buy`` says what to buy, ``observe`` takes what came of it.

    The target is the best division of all money by the curves fitted so far, with what is owned kept and a group that has no more left out.
    Until every group's curve can be fitted all groups get the same number. With ``worst`` each purchase goes to the group whose latest loss is
    largest, which needs no curves.

    Args:
        groups: how many there are.
        money: what may be spent in all, first examples included.
        costs: of one example of each group, > 0; empty for 1.
        weights: what each group counts, >= 0; empty for 1.
        pools: examples that there are of each group; empty without end.
        worst: whether the worst group counts instead of the sum.
    """

    groups: int
    money: float
    costs: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    pools: tuple[int, ...] = ()
    worst: bool = False
    _owned: list[int] = field(default_factory=list)
    _counts: list[list[int]] = field(default_factory=list)
    _losses: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("costs", "weights", "pools"):
            values = getattr(self, name)
            require(len(values) in (0, self.groups), f"{name} must be one for each of {self.groups} groups, found {values}")
        require(all(cost > 0 for cost in self.costs), f"costs must be > 0, found {self.costs}")
        self._owned = [0] * self.groups
        self._counts = [[] for _ in range(self.groups)]
        self._losses = [[] for _ in range(self.groups)]

    @property
    def owned(self) -> IntArray:
        """Examples of each group that have been bought, (groups,)."""
        return np.array(self._owned, np.int64)

    @property
    def left(self) -> float:
        """Money that has not been spent."""
        return self.money - float(np.sum(self._prices() * self.owned))

    def targets(self) -> FloatArray:
        """Return how many examples each group should have when all money is spent, (groups,)."""
        curves = [fit_curve(counts, losses) for counts, losses in zip(self._counts, self._losses, strict=True)]
        fitted = [curve for curve in curves if curve is not None]
        if len(fitted) < self.groups:
            return np.full(self.groups, self.money / float(np.sum(self._prices())))
        weights = np.array(self.weights) if self.weights else None
        return best_counts(fitted, self.money, weights=weights, costs=self._prices(), low=self.owned.astype(np.float64), high=self._pools())

    def buy(self, money: float) -> IntArray:
        """Return what to buy next for at most ``money``, (groups,), and count it as owned. Nothing where no example can be paid for."""
        before, prices, pools = self.owned, self._prices(), self._pools()
        latest = np.array([losses[-1] if losses else math.inf for losses in self._losses])
        targets = np.ones(self.groups) if self.worst else self.targets()
        purse = min(money, self.left)
        while True:
            can = (prices <= purse) & (self.owned < pools)
            if self.worst and np.any(can):
                group = int(np.argmax(np.where(can, latest, -np.inf)))
                if math.isinf(latest[group]):  # nothing was measured: alike for all
                    group = next_group(self.owned, targets, can & np.isinf(latest))
            else:
                group = next_group(self.owned, targets, can)
            if group < 0:
                return self.owned - before
            self._owned[group] += 1
            purse -= float(prices[group])

    def observe(self, losses: Sequence[float]) -> None:
        """Take up the held-out loss of every group with what is owned now; nan where it was not measured."""
        for group, loss in enumerate(losses):
            if not math.isnan(loss):
                self._counts[group].append(self._owned[group])
                self._losses[group].append(float(loss))

    def state_dict(self) -> dict[str, Any]:
        """Return what is owned and what was measured."""
        return {"owned": list(self._owned), "counts": [list(one) for one in self._counts], "losses": [list(one) for one in self._losses]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self._owned = [int(count) for count in state["owned"]]
        self._counts = [[int(count) for count in one] for one in state["counts"]]
        self._losses = [[float(loss) for loss in one] for one in state["losses"]]

    def _prices(self) -> FloatArray:
        return np.array(self.costs) if self.costs else np.ones(self.groups)

    def _pools(self) -> FloatArray:
        return np.array(self.pools, np.float64) if self.pools else np.full(self.groups, np.inf)
