"""Infinite: rise, cool down to a constant, and stay there for ever."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from outlay.catalog import Paper
from outlay.schedules.base import require

Cooldown = Literal["cosine", "inverse_root"]


@dataclass(frozen=True)
class Infinite:
    """Infinite schedule: linear warm-up, cooldown to a constant, constant for ever; later data go on without warming up again.

    With N_w = warmup, N_cd = warmup + cooldown, c = constant (eta_const / eta_max) and x = (n - N_w) / (N_cd - N_w):
    m(n) = n / N_w for n < N_w; in the cooldown, cosine m = c + (1 - c) (1 + cos(pi x)) / 2, inverse root m = 1 + (c - 1) h(x) / h(1) with
    h(x) = 1 / sqrt(1 + steepness x) - 1; m = c from N_cd on. The papers' fourth phase, the annealing, belongs to whoever knows the end:
    ``OpenEnded(Infinite(...), decay=..., shape="geometric", floor=eta_min / eta_max)``.

    The papers give lengths as shares of their own runs, so the amounts have no defaults here. A second evaluation of the schedule is
    arXiv 2503.02844.

    Args:
        warmup: amount spent rising, finite and >= 0.
        cooldown: amount spent in the cooldown, finite and >= 0.
        constant: multiplier that is kept, in (0, 1].
        shape: form of the cooldown.
        steepness: of the inverse root, > 0; not used by the cosine.
    """

    title: ClassVar[str] = "Infinite learning rate"
    paper: ClassVar[Paper | None] = Paper(
        "2403.08763", "Simple and Scalable Strategies to Continually Pre-train Large Language Models", 2024
    )

    warmup: float
    cooldown: float
    constant: float = 0.55
    shape: Cooldown = "cosine"
    steepness: float = 10.0

    def __post_init__(self) -> None:
        require(0 <= self.warmup < math.inf, f"warmup must be finite and >= 0, found {self.warmup}")
        require(0 <= self.cooldown < math.inf, f"cooldown must be finite and >= 0, found {self.cooldown}")
        require(0 < self.constant <= 1, f"constant must lie in (0, 1], found {self.constant}")
        require(self.shape in _FALLS, f"shape must be one of {', '.join(_FALLS)}, found {self.shape!r}")
        require(0 < self.steepness < math.inf, f"steepness must be finite and > 0, found {self.steepness}")

    def at(self, amount: float) -> float:
        """Return the multiplier after ``amount`` >= 0 has been spent."""
        if amount < self.warmup:
            return amount / self.warmup
        if amount >= self.warmup + self.cooldown:
            return self.constant
        x = (amount - self.warmup) / self.cooldown
        return self.constant + (1.0 - self.constant) * _FALLS[self.shape](min(1.0, x), self.steepness)


def _cosine(x: float, steepness: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * x))


def _inverse_root(x: float, steepness: float) -> float:
    # 1 - h(x) / h(1)
    end = 1.0 / math.sqrt(1.0 + steepness) - 1.0
    return 1.0 - (1.0 / math.sqrt(1.0 + steepness * x) - 1.0) / end


#: falls f(x, steepness) for x in [0, 1] of the cooldown, f(0) = 1, f(1) = 0
_FALLS: dict[Cooldown, Callable[[float, float], float]] = {"cosine": _cosine, "inverse_root": _inverse_root}
