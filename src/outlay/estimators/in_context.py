"""In context: a classifier that is fitted anew to the latest questions and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.estimators.features import Latest, logistic, read, standardised
from outlay.estimators.windowed import WindowedEstimates, lately
from outlay.schedules.base import require

#: prior variance of the logit that all questions share: wide enough for rates from 0.002 to 0.998
COMMON = 10.0


@dataclass(frozen=True)
class InContext:
    """Rate = P(success | x, C), with C the ``context`` latest questions of this policy and what came of each: logistic regression on their
    features z, standardised over C, fitted anew to C: minimise sum_k CE(s_k, sigmoid(w z_k + c)) + (penalty width / 2) |w|^2 + c^2 / 20.
    Nothing is kept from one policy to the next but C, so that a changed policy or another one is followed within one context. Unknown while
    nothing in C is right or nothing is wrong.

    The light version of the paper's model. Like it: what is put in (pairs of question and success of the policy at hand, 256 of them), what
    comes out, that no policy needs training of its own, that the order of C says nothing, and that C of one class is refused. Unlike it:
    the paper reads questions with an embedding model (Qwen3-Embedding-0.6B), an attention adapter and a TabPFN head, all trained over many
    policies so that the head knows what success tends to depend on; here nothing is trained beforehand, and a regression takes their place.

    Args:
        context: pairs that are kept, > 1.
        penalty: weight of the penalty on w, > 0; its logits have about the variance 1 / penalty before anything is known.
        hard: count a question as right when its mean success is at least 1/2, as the paper's head does; otherwise by its share of
            successes, which makes the rate that of an answer.
        reads: ``text`` hashed runs of a question's characters, or ``model`` what the model makes of it. The rate of an arm is the mean
            over its latest 16 answers.
    """

    title: ClassVar[str] = "Fitted in context"
    paper: ClassVar[Paper | None] = Paper("2602.03584", "V0: A Generalist Value Model for Any Policy at State Zero", 2026)

    context: int = 256
    penalty: float = 0.1
    hard: bool = False
    reads: Literal["text", "model"] = "text"

    def __post_init__(self) -> None:
        require(self.context > 1, f"context must be > 1, found {self.context}")
        require(self.penalty > 0, f"penalty must be > 0, found {self.penalty}")
        require(self.reads in ("text", "model"), f"reads must be text or model, found {self.reads!r}")

    def open(self, arms: Sequence[Arm], context: Context) -> ContextEstimates:
        """Return estimates whose context is empty."""
        return ContextEstimates(self, lately(arms), Latest(self.context, self.reads))


@dataclass
class Fit:
    """A regression: the pairs' standardised features and what each weighs in the logit of a question."""

    inputs: FloatArray
    weights: FloatArray
    mean: FloatArray
    variance: FloatArray


@dataclass
class ContextEstimates:
    """The context.

    Args:
        spec: what it was opened from.
        lately: each arm's latest answers.
        latest: the pairs.
    """

    spec: InContext
    lately: WindowedEstimates
    latest: Latest
    _fit: Fit | None = field(default=None, init=False)  # follows from the pairs; fitted when it is first asked for

    def rates(self) -> FloatArray:
        """Return the mean over each arm's latest answers."""
        return self.lately.rates()

    def seen(self) -> FloatArray:
        """Return how many of each arm's answers are remembered."""
        return self.lately.seen()

    def of(self, arms: IntArray, features: FloatArray | None) -> FloatArray:
        """Return each question's probability of success under the regression."""
        given = read(features, self.spec.reads)
        labels = (self.latest.rates >= 0.5).astype(np.float64) if self.spec.hard else self.latest.rates
        if not len(given) or not labels.any() or not (labels < 1).any():
            return np.full(len(given), np.nan)
        if self._fit is None:
            self._fit = self._fitted(labels)
        asked = standardised(given, self._fit.mean, self._fit.variance)
        return logistic(self._kernel(asked, self._fit.inputs) @ self._fit.weights)

    def _kernel(self, one: FloatArray, other: FloatArray) -> FloatArray:
        """How far the logits of two questions go together before anything is known, (one, other)."""
        return one @ other.T / (one.shape[1] * self.spec.penalty) + COMMON

    def _fitted(self, labels: FloatArray) -> Fit:
        """Minimise over logits f = K a, in the pairs' own space. Curvature of the cross-entropy is at most 1/4, so each step
        a <- (1 + K / 4)^-1 (f / 4 + s - sigmoid(f)) falls; where it stands still, a = s - sigmoid(f)."""
        mean, variance = self.latest.features.mean(0), self.latest.features.var(0)
        inputs = standardised(self.latest.features, mean, variance)
        kernel = self._kernel(inputs, inputs)
        inverse = np.linalg.inv(np.eye(len(kernel)) + kernel / 4)
        logits = np.zeros(len(kernel))
        weights = logits
        for _ in range(500):
            weights = inverse @ (logits / 4 + labels - logistic(logits))
            moved, logits = logits, kernel @ weights
            if np.abs(moved - logits).max() < 1e-6:
                break
        return Fit(inputs, weights, mean, variance)

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Put the judged questions into the context; the oldest leave it."""
        judged = [one for one in outcomes if one.rewards]
        if judged:
            self.latest.add(judged)
            self.lately.update(judged)
            self._fit = None

    def state_dict(self) -> dict[str, Any]:
        """Return the context and the arms' answers."""
        return {"latest": self.latest.state_dict(), "lately": self.lately.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved context."""
        self.latest.load_state_dict(state["latest"])
        self.lately.load_state_dict(state["lately"])
        self._fit = None
