"""Arms: what a teacher chooses among, and what came of choosing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Arm:
    """One thing that can be chosen: a category of questions without end, a domain of texts, or a single question of a pool.

    Args:
        name: unlike every other arm's, such as ``gcd/2`` or ``17``.
        category: what it is counted under, such as ``gcd/2``; several arms may share one.
        difficulty: larger is harder, in any unit that is the same for all arms; None where nobody said.
        size: different questions or examples it holds, > 0; None without end.
        point: its place in a space of tasks, every coordinate in [0, 1]; empty where there is none.
        text: the question, where the arm is a single one.
    """

    name: str
    category: str = ""
    difficulty: float | None = None
    size: int | None = None
    point: tuple[float, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of one question.

    Args:
        arm: number of the arm that it was chosen from.
        rewards: what each of its judged answers was worth, in their own scale; empty where none could be judged.
        advantages: of the same answers, as the objective worked them out; empty where it did not.
        norms: norm of the gradient of each answer's log likelihood, >= 0; empty where nobody asked for it.
        features: what the model or its text says of the question, for estimators that read it; None for others.
    """

    arm: int
    rewards: tuple[float, ...]
    advantages: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    features: FloatArray | None = None

    @property
    def successes(self) -> tuple[float, ...]:
        """The rewards cut off at 0 and 1: how right each answer was."""
        return tuple(min(max(reward, 0.0), 1.0) for reward in self.rewards)

    @property
    def rate(self) -> float:
        """Mean success; nan where none could be judged."""
        return sum(self.successes) / len(self.rewards) if self.rewards else float("nan")

    @property
    def magnitude(self) -> float:
        """Mean absolute advantage of its answers: the objective's where it is known, else (r - mean) / std of its rewards; nan without rewards."""
        if self.advantages:
            return sum(map(abs, self.advantages)) / len(self.advantages)
        return standardised(self.rewards)


def standardised(rewards: Sequence[float]) -> float:
    """Return mean |r - mean| / std, the deviation taken with n; 0 for equal rewards, 2 sqrt(p (1 - p)) for a share p of ones, nan for none."""
    if not rewards:
        return float("nan")
    centred = np.asarray(rewards, np.float64) - np.mean(rewards)
    spread = float(np.sqrt(np.mean(centred**2)))
    return float(np.mean(np.abs(centred)) / spread) if spread > 1e-12 * float(np.max(np.abs(rewards))) else 0.0


def plain(array: FloatArray | IntArray) -> Any:
    """Return an array as plain values for ``state_dict``."""
    return array.tolist()
