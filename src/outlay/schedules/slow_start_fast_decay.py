"""Slow start, fast decay: for fine-tuning a trained network on adversarial examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class SlowStartFastDecay:
    """Slow linear rise, then exponential decay.

    m(p) = start + (1 - start) p / turn for p < turn; then end^((p - turn) / (1 - turn)).
    The paper says that the learning rate starts low, rises slowly and falls fast; **this function is our reconstruction of that sentence**,
    and all three defaults are our choice.

    Args:
        start: multiplier at progress 0, in [0, 1].
        turn: share of the budget spent rising, in [0, 1).
        end: multiplier at progress 1, in (0, 1].
    """

    title: ClassVar[str] = "Slow start, fast decay"
    paper: ClassVar[Paper | None] = Paper(
        "2012.13628", "A Simple Fine-tuning Is All You Need: Towards Robust Deep Learning Via Adversarial Fine-tuning", 2020
    )

    start: float = 0.1
    turn: float = 0.5
    end: float = 0.001

    def __post_init__(self) -> None:
        require(0 <= self.start <= 1, f"start must lie in [0, 1], found {self.start}")
        require(0 <= self.turn < 1, f"turn must lie in [0, 1), found {self.turn}")
        require(0 < self.end <= 1, f"end must lie in (0, 1], found {self.end}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        if progress < self.turn:
            return self.start + (1.0 - self.start) * progress / self.turn
        power: float = self.end ** ((progress - self.turn) / (1.0 - self.turn))
        return power
