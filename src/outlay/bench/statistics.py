"""Statistics of a bench: paired differences, average ranks, time to target and performance profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from outlay.bench.study import Cell, Study
from outlay.errors import MissingExtra
from outlay.rng import numpy_generator


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that covers it with 95 % confidence; not a number where one value alone gives none."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return mean -/+ t s / sqrt(n), t the quantile of Student's distribution with n - 1 degrees of freedom.

    Raises:
        MissingExtra: without scipy.
    """
    try:
        from scipy import stats
    except ImportError:
        raise MissingExtra("scipy", "bench") from None
    count = len(values)
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = sum(values) / count
    if count == 1 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan, count)
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def paired(cells: Sequence[Cell], method: str, baseline: str, workload: str, share: float) -> Interval:
    """Return the mean over seeds of loss(method) - loss(baseline) at one budget; below 0 means that the method is better."""
    losses = {(cell.method, cell.seed): cell.loss for cell in cells if cell.workload == workload and cell.share == share}
    return paired_losses(*({seed: loss for (name, seed), loss in losses.items() if name == which} for which in (method, baseline)))


def paired_losses(method: Mapping[int, float], baseline: Mapping[int, float]) -> Interval:
    """Return the mean of loss(method) - loss(baseline) over the seeds that both have, from seed -> loss.

    A run that diverged has an infinite loss, and is worse than any that did not: where one side alone diverged, even once, the interval lies
    at infinity on the other's side; where both did, they count as equal.
    """
    pairs = [(method[seed], baseline[seed]) for seed in sorted(method) if seed in baseline]
    differences = [0.0 if mine == other else mine - other for mine, other in pairs]
    beyond = {one for one in differences if math.isinf(one)}
    if len(beyond) == 1:
        end = beyond.pop()
        return Interval(end, end, end, len(differences))
    return mean_interval(differences)


def ranks(losses: Mapping[str, float]) -> dict[str, float]:
    """Return each method's rank, 1 for the smallest loss; equal ones (those that diverged too) share the mean of their places."""
    order = sorted(losses.values())
    return {name: order.index(loss) + 1 + (order.count(loss) - 1) / 2 for name, loss in losses.items()}


def rank_table(
    cells: Sequence[Cell], methods: Sequence[str], shares: Sequence[float] | None = None
) -> dict[tuple[str, float, int], dict[str, float]]:
    """Return (workload, share, seed) -> ranks among ``methods``, for every such place where all of them were measured."""
    places: dict[tuple[str, float, int], dict[str, float]] = {}
    for cell in cells:
        if cell.method in methods and (shares is None or cell.share in shares):
            places.setdefault((cell.workload, cell.share, cell.seed), {})[cell.method] = cell.loss
    return {place: ranks(losses) for place, losses in places.items() if len(losses) == len(methods)}


def average_ranks(table: Mapping[tuple[str, float, int], Mapping[str, float]], resamples: int = 2000) -> dict[str, Interval]:
    """Return each method's average rank, with the 2.5 % and 97.5 % quantiles over resampled workloads, and seeds within them.

    Every workload counts alike, and every budget within it. Workloads are resampled as wholes, since what one of them says at several
    budgets is not independent.
    """
    if not table:
        return {}
    methods = sorted(next(iter(table.values())))
    by_workload: dict[str, dict[int, list[list[float]]]] = {}
    for (workload, _, seed), row in sorted(table.items()):
        by_workload.setdefault(workload, {}).setdefault(seed, []).append([row[name] for name in methods])
    # workload -> array of (seeds, methods), budgets averaged
    means = [np.array([np.mean(rows, axis=0) for rows in seeds.values()]) for seeds in by_workload.values()]
    centre = np.mean([each.mean(axis=0) for each in means], axis=0)
    rng = numpy_generator(0, "bench/ranks")
    drawn = np.empty((resamples, len(methods)))
    for i in range(resamples):
        chosen = [means[w] for w in rng.integers(len(means), size=len(means))]
        drawn[i] = np.mean([each[rng.integers(len(each), size=len(each))].mean(axis=0) for each in chosen], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {name: Interval(float(centre[i]), float(low[i]), float(high[i]), len(table)) for i, name in enumerate(methods)}


# ---- time to target --------------------------------------------------------------------------------------------------------------------


def time_to_target(cells: Sequence[Cell], target: float) -> float:
    """Return the smallest share at which the median loss over seeds has reached the target; infinite when none has.

    Args:
        cells: of one method on one workload.
        target: a loss.
    """
    shares = sorted({cell.share for cell in cells})
    reached = [share for share in shares if float(np.median([cell.loss for cell in cells if cell.share == share])) <= target]
    return reached[0] if reached else math.inf


def target_times(study: Study, cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """Return workload -> method -> smallest share that reaches the bench's target, on the workloads where all of its methods are compared.

    A workload on which the target has not been measured yet, or diverged, is left out; without a target in the bench all are.
    """
    target = study.bench.target
    times: dict[str, dict[str, float]] = {}
    for workload in study.workloads if target is not None else ():
        mine = [cell for cell in cells if cell.workload == workload.name]
        goal = [cell.loss for cell in mine if target is not None and cell.method == target.method and cell.share == target.share]
        level = float(np.median(goal)) if goal else math.nan
        if math.isfinite(level) and set(study.methods(workload)) == set(study.bench.methods):
            times[workload.name] = {name: time_to_target([c for c in mine if c.method == name], level) for name in study.bench.methods}
    return times


def ratios(times: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return method -> workload -> time over the fastest method's, from workload -> method -> time; infinite where nobody got there."""
    out: dict[str, dict[str, float]] = {}
    for workload, row in times.items():
        best = min(row.values())
        for method, time in row.items():
            out.setdefault(method, {})[workload] = time / best if math.isfinite(time) else math.inf
    return out


def profile(ratio: Sequence[float], tau: float) -> float:
    """Return rho(tau): the share of workloads whose ratio is at most ``tau``."""
    return sum(one <= tau for one in ratio) / len(ratio)


def score(ratio: Sequence[float], largest: float = 4.0) -> float:
    """Return the area under the profile from 1 to ``largest``, over ``largest`` - 1: mean of max(0, largest - r) / (largest - 1).

    It is 1 for a method that is fastest everywhere, and 0 for one that reaches no target within ``largest`` times the best (arXiv 2306.07179).
    """
    return math.fsum(max(0.0, largest - one) / (largest - 1) if math.isfinite(one) else 0.0 for one in ratio) / len(ratio)
