"""Adaptive KL: the coefficient of a divergence follows a target."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from outlay.catalog import Paper
from outlay.record import Record
from outlay.schedules.base import require


@dataclass
class AdaptiveKl:
    """After every record that holds the metric: m <- m (1 + rate clip(kl / target - 1, -clip, clip)), within [minimum, maximum]; m = 1 at first.

    For the knob ``kl`` of an objective that holds to a reference: the coefficient rises while the policy is further away than wanted.

    Args:
        target: wanted value of the metric, > 0, in its own unit: ``kl`` is in nats a token, while the paper counts a whole answer's.
        rate: change a record for an error of 1, in (0, 1].
        clip: largest error that counts, > 0.
        metric: what is steered.
        minimum: smallest multiplier, > 0.
        maximum: largest multiplier, >= ``minimum``.
    """

    title: ClassVar[str] = "Adaptive KL coefficient"
    paper: ClassVar[Paper | None] = Paper("1909.08593", "Fine-Tuning Language Models from Human Preferences", 2019)

    target: float = 0.1
    rate: float = 0.1
    clip: float = 0.2
    metric: str = "kl"
    minimum: float = 1e-4
    maximum: float = 1e4
    _multiplier: float = field(default=1.0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.target > 0, f"target must be > 0, found {self.target}")
        require(0 < self.rate <= 1, f"rate must lie in (0, 1], found {self.rate}")
        require(self.clip > 0, f"clip must be > 0, found {self.clip}")
        require(
            0 < self.minimum <= self.maximum,
            f"minimum and maximum must satisfy 0 < minimum <= maximum, found {self.minimum}, {self.maximum}",
        )
        require(
            self.rate * self.clip < 1,
            f"rate times clip must be < 1, or the coefficient could change its sign, found {self.rate * self.clip}",
        )

    def value(self, progress: float) -> float:
        """Return the multiplier reached so far; progress does not enter."""
        return self._multiplier

    def observe(self, record: Record) -> None:
        """Raise the multiplier when the metric is above its target, lower it when below."""
        seen = record.quantity(self.metric)
        if seen is None or not math.isfinite(seen):
            return
        error = min(max(seen / self.target - 1, -self.clip), self.clip)
        self._multiplier = min(max(self._multiplier * (1 + self.rate * error), self.minimum), self.maximum)

    def state_dict(self) -> dict[str, Any]:
        """Return the multiplier."""
        return {"multiplier": self._multiplier}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._multiplier = float(state["multiplier"])
