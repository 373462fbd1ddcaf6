"""AutoLRS: search the learning rate that will have the lowest loss a stretch ahead, on branches, again and again."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from outlay.branch import Branch, Landing
from outlay.catalog import Paper
from outlay.errors import MissingExtra
from outlay.record import Record
from outlay.rng import numpy_generator
from outlay.schedules.base import require
from outlay.schedules.constant import Constant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: forecast of a probe whose loss was not finite
FAILED = 1e6
#: learning rates that the Gaussian process chooses among, evenly spaced in their logarithm
CANDIDATES = 1001
#: passes in which outliers are dropped, and the share of the losses that each drops
PASSES, DROPPED = 10, 0.03
#: squared residuals of the smoothing spline, as a share of those of the exponential that fits best
SMOOTHING = 0.25
#: what rounding may take from a share of the budget
_ROUNDING = 1e-9


@dataclass
class _State:
    stage: int = 0
    explored: list[list[float]] = field(default_factory=list)  # place in [0, 1] of the logarithmic range, forecast
    proposal: float | None = None
    best: float | None = None
    left: int = 0
    until: float = 0.0
    over: bool = False


@dataclass
class AutoLRS:
    """Stage by stage, try ``probes`` learning rates on branches of tau' steps each, forecast their loss after tau steps, and use the best for tau.

    A probe trains tau' steps at a constant rate from where the stage began. Its losses are freed of noise and y(x) = a exp(b x) + c, b < 0, is
    fitted to them; the forecast is y(tau). A Gaussian process over the logarithm of the rate (Matern 5/2) proposes the next, the first being drawn
    at random: the one with the lowest mean - kappa deviation, of 1001 in [low, high]. The probe with the lowest forecast wins; tau = ``horizon`` tau'
    steps follow at its rate. Then tau and tau' are doubled, ``doublings`` times at most. A loss that is not finite is a forecast of 1e6.

    Every probe is charged, to the account ``probe``: with the defaults, half of all steps are search. A search is begun only if the budget bears it
    and the stretch that follows; what is left in the end is spent at the last rate found. Branches go on behind the data that they read, as in the
    released code. A step of a stretch that is not finite ends it, and a new search begins.

    What the paper leaves open, and how it is here: kappa (it says 1000, its code 1e6; both explore alone); a rate is never tried twice in a search
    (the code tells its process the loss again and asks anew); the spline that frees the losses of noise takes up a quarter of what an exponential
    leaves of them; and the fit of b starts from the best of a grid. Outliers in the later half of a probe are not
    dropped, as in the paper, and may spoil its forecast. When tau is at its largest, the paper goes over to the loss of held-out data
    as its signal; this does not, and goes on with the training loss.

    Args:
        probe: tau', steps of a probe in the first stage, >= 4; or
        share: a probe's share of the stage's budget, in (0, 1), in place of ``probe``: for budgets that know no steps.
        horizon: tau / tau', probes' lengths that the rate found is used for and forecast to, >= 1.
        probes: rates tried in a search, >= 2.
        doublings: how often tau and tau' are doubled, >= 0; 3 takes tau from 1000 to the paper's 8000.
        low: smallest rate, as a multiple of the knob's peak, > 0.
        high: largest rate, likewise, > low.
        kappa: weight of the deviation, >= 0; 0 looks at the mean alone.
        warmup: share of the budget before the first search, rising from 0 to the middle of the range in a straight line, in [0, 1).
        seed: of the first rate tried in every search, >= 0.
    """

    title: ClassVar[str] = "AutoLRS"
    paper: ClassVar[Paper | None] = Paper(
        "2105.10762", "AutoLRS: Automatic Learning-Rate Schedule by Bayesian Optimization on the Fly", 2021
    )

    probe: int = 100
    share: float | None = None
    horizon: int = 10
    probes: int = 10
    doublings: int = 3
    low: float = 0.01
    high: float = 1.0
    kappa: float = 1000.0
    warmup: float = 0.0
    seed: int = 0
    _state: _State = field(default_factory=_State, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.probe >= 4, f"probe must be >= 4 steps, found {self.probe}")
        require(self.share is None or 0 < self.share < 1, f"share must lie in (0, 1), found {self.share}")
        require(self.horizon >= 1, f"horizon must be >= 1, found {self.horizon}")
        require(self.probes >= 2, f"probes must be >= 2, found {self.probes}")
        require(self.doublings >= 0, f"doublings must be >= 0, found {self.doublings}")
        require(0 < self.low < self.high < math.inf, f"low and high must be finite with 0 < low < high, found {self.low} and {self.high}")
        require(0 <= self.kappa < math.inf, f"kappa must be finite and >= 0, found {self.kappa}")
        require(0 <= self.warmup < 1, f"warmup must lie in [0, 1), found {self.warmup}")
        require(self.seed >= 0, f"seed must be >= 0, found {self.seed}")
        for package, module in (("scikit-learn", "sklearn"), ("scipy", "scipy")):
            if importlib.util.find_spec(module) is None:
                raise MissingExtra(package, "tasks")

    def value(self, progress: float) -> float:
        """Return the rate in use, as a multiple of the knob's peak; before the first search the middle of the range, after a straight rise."""
        if self._state.best is not None:
            return self._state.best
        middle = self.rate(0.5)
        return middle * progress / self.warmup if progress < self.warmup else middle

    def rate(self, place: float) -> float:
        """Return the rate at a place in [0, 1] of the logarithmic range."""
        return float(self.low ** (1.0 - place) * self.high**place)

    def next_branch(self, progress: float) -> Branch | None:
        """Return the next probe of a search; None while a rate that was found is in use."""
        state = self._state
        in_use = state.left > 0 if self.share is None else progress < state.until - _ROUNDING
        if state.over or in_use or progress < self.warmup - _ROUNDING:
            return None
        to_come = self.probes - len(state.explored) - 1 + self.horizon
        times = 2 ** min(state.stage, self.doublings)
        name, multiplier = f"search {state.stage + 1}, probe {len(state.explored) + 1}", Constant(self.rate(self._place()))
        if self.share is None:
            return Branch(name, multiplier, steps=times * self.probe, leaves=to_come * times * self.probe, rewind_data=False)
        if times * self.share >= 1:
            return None
        return Branch(name, multiplier, share=times * self.share, leaves=to_come * times * self.share, rewind_data=False)

    def _place(self) -> float:
        """Return where the next probe lies; the first of a search is drawn."""
        if self._state.proposal is not None:
            return self._state.proposal
        return round(float(numpy_generator(self.seed, "autolrs", self._state.stage).random()) * (CANDIDATES - 1)) / (CANDIDATES - 1)

    def landed(self, branch: Branch, landing: Landing) -> None:
        """Forecast the probe's loss and propose the next rate, or settle on the best. Without the means for all of a search there is no other."""
        state = self._state
        if landing.end in ("refused", "cut"):
            state.over = True
            self._settle()
            return
        losses = [record.loss if record.loss is not None else math.nan for record in landing.records]
        predicted = forecast(losses, self.horizon * len(losses)) if landing.end == "whole" else FAILED
        state.explored.append([self._place(), predicted])
        if len(state.explored) < self.probes:
            state.proposal = propose(state.explored, self.kappa)
            return
        times = 2 ** min(state.stage, self.doublings)
        state.left = times * self.horizon * self.probe if self.share is None else 0
        state.until = landing.ended + times * self.horizon * self.share if self.share is not None else 0.0
        state.stage += 1
        self._settle()

    def _settle(self) -> None:
        state = self._state
        if state.explored:
            # of equals the smallest, since all may have failed
            state.best = self.rate(min(state.explored, key=lambda seen: (seen[1], seen[0]))[0])
        state.explored, state.proposal = [], None

    def observe(self, record: Record) -> None:
        """Count a step at the rate that was found; one that is not finite calls for a new search."""
        state = self._state
        if record.kind != "step" or state.best is None:
            return
        state.left = max(0, state.left - 1)
        if record.outcome == "skipped":
            state.left, state.until = 0, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._state = _State(**(state | {"explored": [list(seen) for seen in state["explored"]]}))


def propose(explored: Sequence[Sequence[float]], kappa: float) -> float:
    """Return the place in [0, 1] with the lowest bound mean - kappa deviation, of those not explored yet.

    Args:
        explored: pairs of a place and its forecast.
        kappa: weight of the deviation.
    """
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    seen = np.array([[pair[0]] for pair in explored])
    values = np.array([pair[1] for pair in explored])
    places = np.linspace(0.0, 1.0, CANDIDATES)
    free = places[np.min(np.abs(places[:, None] - seen[None, :, 0]), axis=1) > 0.5 / (CANDIDATES - 1)]
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(0.2, (1e-2, 1e1), nu=2.5)
    process = GaussianProcessRegressor(kernel, alpha=1e-6, normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a handful of points may leave the length scale at its bound
        process.fit(seen, values)
        mean, deviation = process.predict(free[:, None], return_std=True)
    return float(free[int(np.argmin(mean - kappa * deviation))])


def forecast(losses: Sequence[float], index: float) -> float:
    """Return the loss that is expected at step ``index``, counted from 1 as the losses are; 1e6 when one of them is not finite.

    Fewer than four losses show no curve: then it is their mean.
    """
    import numpy as np

    y = np.asarray(losses, dtype=np.float64)
    if not len(y) or not np.isfinite(y).all():
        return FAILED
    if len(y) < 4:
        return float(y.mean())
    x = np.arange(1, len(y) + 1, dtype=np.float64)
    a, b, c = fit_exponential(x, _without_noise(x, y))
    predicted = a * math.exp(b * index) + c
    return predicted if math.isfinite(predicted) else FAILED


def fit_exponential(x: Floats, y: Floats, refine: bool = True) -> tuple[float, float, float]:
    """Return a, b < 0 and c of the least-squares fit of a exp(b x) + c: linear in a and c, and searched over ln(-b).

    Args:
        x: places, at least two.
        y: values.
        refine: search on from the best of a grid by Nelder and Mead; else take that.
    """
    import numpy as np
    from scipy.optimize import minimize

    def solve(betas: Floats) -> tuple[Floats, Floats, Floats]:
        """Return a, c and the sum of squared residuals for each beta, by the closed form of a straight line in exp(b x)."""
        curves = np.exp(-np.exp(betas)[:, None] * x)
        middles = curves.mean(axis=1, keepdims=True)
        spread = np.sum((curves - middles) ** 2, axis=1)
        a = np.divide((curves - middles) @ (y - y.mean()), spread, out=np.zeros_like(spread), where=spread > 0)
        c = y.mean() - a * middles[:, 0]
        return a, c, np.sum((a[:, None] * curves + c[:, None] - y) ** 2, axis=1)

    # from a decay over a hundred windows to one within a step; the starting point 0 of the released code is among them
    starts = np.array([0.0, *np.linspace(math.log(0.01 / float(x[-1] - x[0])), math.log(5.0), 40)])
    beta = starts[int(np.argmin(solve(starts)[2]))]
    if refine:
        options = {"xatol": 1e-12, "fatol": math.inf, "maxiter": 200, "initial_simplex": [[beta], [beta + 0.1]]}
        beta = minimize(lambda place: solve(place)[2][0], [beta], method="Nelder-Mead", options=options).x[0]
    (a,), (c,), _ = solve(np.array([beta]))
    return float(a), -math.exp(beta), float(c)


def _without_noise(x: Floats, y: Floats) -> Floats:
    """Return the losses as a smooth curve. Ten times the 3 % that lie furthest from a quadratic smoothing spline are dropped, among those of the first
    half, since the curve's end decides the forecast; then the spline through the rest is read at every step."""
    import numpy as np

    kept = np.ones(len(x), dtype=bool)
    count, early = int(DROPPED * len(x)), x <= len(x) / 2
    for _ in range(PASSES if count else 0):
        candidates = np.flatnonzero(kept & early)
        if len(candidates) <= count:
            break
        off = np.abs(_spline(x[kept], y[kept], x, refine=False) - y)
        kept[candidates[np.argsort(off[candidates], kind="stable")[-count:]]] = False
    return _spline(x[kept], y[kept], x, refine=True)


def _spline(x: Floats, y: Floats, at: Floats, refine: bool) -> Floats:
    """Return at ``at`` the quadratic spline whose squared residuals on (x, y) sum to a quarter of those of the exponential that fits them best.

    Allowed as much as the exponential leaves, a quadratic spline is too straight at the curve's beginning and bends the forecast."""
    import numpy as np
    from scipy.interpolate import UnivariateSpline

    a, b, c = fit_exponential(x, y, refine)
    curve = a * np.exp(b * x) + c
    left = float(np.sum((curve - y) ** 2))
    if left <= 1e-20 * float(np.sum(y**2)):
        return np.asarray(a * np.exp(b * at) + c)  # there is no noise to be freed of
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the smoothing need not be met to the last digit
        return np.asarray(UnivariateSpline(x, y, k=2, s=SMOOTHING * left)(at))
