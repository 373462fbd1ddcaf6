"""GAIN-RL: questions ordered once by the angles of their hidden states, and a window that slides over the order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.base import Asking, drawn_without, expected_without, softmax


@dataclass(frozen=True)
class Gain:
    """Questions are sorted by falling angle concentration; place i is drawn with p proportional to exp(-((i - mu) / sigma)^2 / 2), without
    replacement, and after each batch mu <- mu + clip(step tanh(alpha (accuracy - beta)) + step tanh(alpha angle), least, most).

    The accuracy is the mean success of the batch's judged answers. The angle, the mean cosine within generated answers, is not among what a
    teacher is told: its term is 0 here, which is what the paper's rule gives for answers without any concentration. mu starts at 0 and stays
    within the list, beyond which the paper says nothing. Until the questions are ranked they count as sorted in the order that they have.
    Lengths are in places of the list; the defaults are meant for thousands of questions.

    Args:
        step: places that mu moves at most for either term, >= 0.
        alpha: how sharply accuracy moves it, >= 0.
        beta: accuracy at which it stands still, in [0, 1].
        sigma: width of the window in places, > 0.
        least: bound of a move from below, in places.
        most: bound from above, >= ``least``.
    """

    title: ClassVar[str] = "GAIN-RL, a window over questions ordered by angle"
    paper: ClassVar[Paper | None] = Paper(
        "2506.02281", "Angles Don't Lie: Unlocking Training-Efficient RL Through the Model's Own Signals", 2025
    )

    step: float = 500.0
    alpha: float = 2.0
    beta: float = 0.5
    sigma: float = 1000.0
    least: float = 0.0
    most: float = 1000.0

    def __post_init__(self) -> None:
        require(self.step >= 0, f"step must be >= 0, found {self.step}")
        require(self.alpha >= 0, f"alpha must be >= 0, found {self.alpha}")
        require(0 <= self.beta <= 1, f"beta must be in [0, 1], found {self.beta}")
        require(self.sigma > 0, f"sigma must be > 0, found {self.sigma}")
        require(self.least <= self.most, f"least must be <= most, found {self.least} and {self.most}")

    def open(self, arms: Sequence[Arm], context: Context) -> GainLessons:
        """Return the lessons."""
        return GainLessons(self, len(arms))


@dataclass
class GainLessons:
    """The order of the arms and where the window stands."""

    spec: Gain
    arms: int
    mu: float = 0.0
    sets: ClassVar[bool] = True
    places: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.places = list(range(self.arms))

    def ranked(self, scores: FloatArray) -> None:
        """Sort the arms by falling score; of equal ones the first comes first."""
        places = np.empty(self.arms, np.int64)
        places[np.argsort(-scores, kind="stable")] = np.arange(self.arms)
        self.places = places.tolist()

    def weights(self) -> FloatArray:
        """Return the Gaussian over places, (arms,), summing to 1; never 0, so that enough draws reach everything."""
        away = (np.array(self.places, np.float64) - self.mu) / self.spec.sigma
        return np.maximum(softmax(-0.5 * away**2), 1e-300)

    def shares(self, asking: Asking) -> FloatArray:
        """Return about the shares to which drawing by the window without replacement leads."""
        return expected_without(self.weights(), asking.count)

    def choose(self, asking: Asking) -> IntArray:
        """Return arms drawn by the window, none twice before all have come."""
        return drawn_without(self.weights(), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Move the window by the batch's mean success."""
        successes = [success for one in outcomes for success in one.successes]
        if successes:
            moved = self.spec.step * math.tanh(self.spec.alpha * (sum(successes) / len(successes) - self.spec.beta))
            self.mu += min(max(moved, self.spec.least), self.spec.most)
            self.mu = min(max(self.mu, 0.0), self.arms - 1.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the place of every arm and the window's."""
        return {"places": list(self.places), "mu": self.mu}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved order and window."""
        self.places, self.mu = [int(place) for place in state["places"]], float(state["mu"])


def angle_concentration(hidden_question: FloatArray, hidden_system: FloatArray, weight: float = 8.0) -> float:
    """Return (intra + weight inter) / (1 + weight), in [-1, 1]: 1 where all hidden states point the same way.

    intra is the mean cosine over all pairs of the question's tokens, each with itself among them, and inter over pairs of a token of the
    question and one of the system prompt. The division keeps the order. Without a system prompt it is intra alone.

    Args:
        hidden_question: hidden states that enter the last layer's feed-forward part, (tokens, width); at least one token.
        hidden_system: the same of the system prompt, (tokens, width); it may have no token.
        weight: of inter, >= 0; the released code has 8.
    """
    question = unit_rows(hidden_question).mean(axis=0)
    intra = float(question @ question)
    if not len(hidden_system):
        return intra
    return (intra + weight * float(question @ unit_rows(hidden_system).mean(axis=0))) / (1 + weight)


def unit_rows(rows: FloatArray) -> FloatArray:
    """Return every row divided by its length; rows of zeros stay as they are."""
    wide = np.asarray(rows, np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.asarray(wide / np.where(lengths > 0, lengths, 1.0), np.float64)
