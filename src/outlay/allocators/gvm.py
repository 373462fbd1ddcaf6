"""GVM: answers where the gradient of the right ones is large and right ones are rare, but not hopeless."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.allocators.base import Bound, Claims, filled
from outlay.allocators.solver import largest_remainder
from outlay.arms import FloatArray, IntArray
from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Gvm:
    """n_i in proportion to G_i / sqrt(p_i + alpha / p_i^(beta - 1)), with G the mean norm of the gradient of a right answer's log
    likelihood; nothing for p = 0 or G = 0.

    With alpha = 0 that is the division at which the variance of the gradient, sum G_i^2 / (p_i n_i), is smallest: (sum G_i / sqrt(p_i))^2 /
    total. alpha keeps hard questions from taking everything: with equal norms and beta = 2 most goes to p = sqrt(alpha).

    Unknown norms count as the mean of the known, or as equal where none is known. A question whose rate is unknown weighs as much as
    the mean of the others. Where filters or zeros leave nobody, they are set aside.

    Args:
        probe: answers to every question before the division, > 0.
        alpha: how much hard questions are held back, >= 0.
        beta: how sharply, >= 1.
        above: questions whose rate is above it get nothing, in (0, 1]; 1 keeps all.
        fewest: questions of which fewer right answers are expected get nothing, >= 0; 0 keeps all.
    """

    title: ClassVar[str] = "Gradient variance minimisation"
    paper: ClassVar[Paper | None] = Paper(
        "2505.02391",
        "Optimizing Chain-of-Thought Reasoners via Gradient Variance Minimization in Rejection Sampling and RL",
        2025,
    )
    needs_norms: ClassVar[bool] = True

    probe: int = 8
    alpha: float = 1e-3
    beta: float = 2.0
    above: float = 1.0
    fewest: float = 0.0

    def __post_init__(self) -> None:
        require(self.probe > 0, f"probe must be > 0, found {self.probe}")
        require(0 <= self.alpha < math.inf, f"alpha must be >= 0, found {self.alpha}")
        require(1 <= self.beta < math.inf, f"beta must be >= 1, found {self.beta}")
        require(0 < self.above <= 1, f"above must lie in (0, 1], found {self.above}")
        require(0 <= self.fewest < math.inf, f"fewest must be >= 0, found {self.fewest}")

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        """Return the division."""
        weights = self.weights(claims)
        kept = np.where(claims.rates > self.above, 0.0, weights)
        mass = math.fsum(kept.tolist())
        if mass > 0:
            kept = np.where(claims.rates * (kept / mass) * total < self.fewest, 0.0, kept)
        return largest_remainder(kept if np.any(kept) else weights, total, low=low, high=high)

    def weights(self, claims: Claims) -> FloatArray:
        """Return G / sqrt(p + alpha / p^(beta - 1)) for each, (claimants,), before the filters."""
        norms, rates = filled(claims.right_norms, len(claims)), claims.rates
        with np.errstate(divide="ignore", over="ignore"):
            resistance = np.sqrt(rates + self.alpha / rates ** (self.beta - 1)) if self.alpha else np.sqrt(rates)
            weights = np.where(rates == 0, 0.0, norms / np.where(rates == 0, 1.0, resistance))
        return filled(weights, len(claims))
