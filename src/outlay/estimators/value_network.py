"""Value network: a small network that predicts the success rate of a question from what is read of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome, plain
from outlay.catalog import Paper
from outlay.context import Context
from outlay.estimators.features import logistic, read, standardised
from outlay.estimators.windowed import WindowedEstimates, lately
from outlay.rng import numpy_generator
from outlay.schedules.base import require

#: Adam's two decays and the term that keeps it from dividing by 0
DECAYS, TINY = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class ValueNetwork:
    """Rate = V(x) = sigmoid(w tanh(A z + b) + c), with z the question's features, each coordinate standardised by all that were learnt from.
    After each batch one pass of Adam minimises the mean of (V(x_i) - r_i)^2, r_i the mean success of question i. So V lags the policy by
    one batch and costs no answers. Unknown before the first batch; the output layer starts at 0, which is a rate of 1/2.

    The paper's V is a language model of the policy's size with a scalar head, trained in its weights. This one is a head on features that
    stay as they are: the policy's own hidden state (``model``), or hashed runs of characters (``text``). The paper's learning rate is
    unknown; the default is what learns such a head. The rate of an arm is the mean over its latest 16 answers.

    Args:
        hidden: hidden units, > 0.
        lr: Adam's learning rate, > 0.
        minibatch: questions a step; a pass has as many steps as cover the batch, in its order, > 0.
        reads: ``model`` what the model makes of a question, or ``text`` hashed runs of its characters.
    """

    title: ClassVar[str] = "Value network"
    paper: ClassVar[Paper | None] = Paper("2510.01135", "Prompt Curriculum Learning for Efficient LLM Post-Training", 2025)

    hidden: int = 64
    lr: float = 3e-3
    minibatch: int = 32
    reads: Literal["text", "model"] = "model"

    def __post_init__(self) -> None:
        require(self.hidden > 0, f"hidden must be > 0, found {self.hidden}")
        require(self.lr > 0, f"lr must be > 0, found {self.lr}")
        require(self.minibatch > 0, f"minibatch must be > 0, found {self.minibatch}")
        require(self.reads in ("text", "model"), f"reads must be text or model, found {self.reads!r}")

    def open(self, arms: Sequence[Arm], context: Context) -> NetworkEstimates:
        """Return estimates that know nothing yet."""
        return NetworkEstimates(self, lately(arms), context.seed)


@dataclass
class NetworkEstimates:
    """The network, what Adam remembers, and the mean and variance of every coordinate.

    Args:
        spec: what it was opened from.
        lately: each arm's latest answers.
        seed: root of the stream that the hidden layer is drawn from, once the width is known.
    """

    spec: ValueNetwork
    lately: WindowedEstimates
    seed: int
    _weights: list[FloatArray] = field(default_factory=list)  # A (hidden, width), b (hidden,), w (hidden,), c (1,)
    _moments: list[list[FloatArray]] = field(default_factory=list)  # the means of gradients and of their squares, each shaped like weights
    _steps: int = 0
    _count: int = 0
    _mean: FloatArray = field(default_factory=lambda: np.zeros(0))
    _spread: FloatArray = field(default_factory=lambda: np.zeros(0))  # sum of squared distances from the mean

    def rates(self) -> FloatArray:
        """Return the mean over each arm's latest answers."""
        return self.lately.rates()

    def seen(self) -> FloatArray:
        """Return how many of each arm's answers are remembered."""
        return self.lately.seen()

    def of(self, arms: IntArray, features: FloatArray | None) -> FloatArray:
        """Return V of each question."""
        given = read(features, self.spec.reads)
        if not self._count or not len(given):
            return np.full(len(given), np.nan)
        return self._forward(self._standard(given))[1]

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Learn from the judged questions in one pass."""
        judged = [one for one in outcomes if one.rewards]
        if not judged:
            return
        features = np.array([read(one.features, self.spec.reads) for one in judged])
        wanted = np.array([one.rate for one in judged])
        if not self._count:
            self._begin(features.shape[1])
        self._meet(features)
        inputs = self._standard(features)
        for start in range(0, len(judged), self.spec.minibatch):
            self._step(inputs[start : start + self.spec.minibatch], wanted[start : start + self.spec.minibatch])
        self.lately.update(judged)

    def _begin(self, width: int) -> None:
        rng = numpy_generator(self.seed, "estimators/value_network")
        hidden = self.spec.hidden
        self._weights = [rng.standard_normal((hidden, width)) / np.sqrt(width), np.zeros(hidden), np.zeros(hidden), np.zeros(1)]
        self._moments = [[np.zeros_like(weight) for weight in self._weights] for _ in DECAYS]
        self._mean, self._spread = np.zeros(width), np.zeros(width)

    def _meet(self, features: FloatArray) -> None:
        """Join the coordinates' mean and spread with a batch's."""
        count, mean = len(features), features.mean(0)
        whole, away = self._count + count, mean - self._mean
        self._spread = self._spread + ((features - mean) ** 2).sum(0) + away**2 * (self._count * count / whole)
        self._mean = self._mean + away * (count / whole)
        self._count = whole

    def _standard(self, features: FloatArray) -> FloatArray:
        return standardised(features, self._mean, self._spread / self._count)

    def _forward(self, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        a, b, w, c = self._weights
        hidden = np.tanh(inputs @ a.T + b)
        return hidden, logistic(hidden @ w + c[0])

    def _step(self, inputs: FloatArray, wanted: FloatArray) -> None:
        hidden, found = self._forward(inputs)
        by_logit = 2 * (found - wanted) * found * (1 - found) / len(wanted)
        by_hidden = by_logit[:, None] * self._weights[2] * (1 - hidden**2)
        gradients = [by_hidden.T @ inputs, by_hidden.sum(0), by_logit @ hidden, by_logit.sum(keepdims=True)]
        self._steps += 1
        first, second = DECAYS
        for weight, gradient, mean, square in zip(self._weights, gradients, *self._moments, strict=True):
            mean += (1 - first) * (gradient - mean)
            square += (1 - second) * (gradient**2 - square)
            size = np.sqrt(square / (1 - second**self._steps)) + TINY
            weight -= self.spec.lr / (1 - first**self._steps) * mean / size

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, what Adam remembers, the coordinates' mean and spread, and the arms' answers."""
        return {
            "weights": [plain(weight) for weight in self._weights],
            "moments": [[plain(moment) for moment in moments] for moments in self._moments],
            "steps": self._steps,
            "count": self._count,
            "mean": plain(self._mean),
            "spread": plain(self._spread),
            "lately": self.lately.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved network."""
        self._weights = [np.array(weight, np.float64) for weight in state["weights"]]
        self._moments = [[np.array(moment, np.float64) for moment in moments] for moments in state["moments"]]
        self._steps, self._count = int(state["steps"]), int(state["count"])
        self._mean, self._spread = np.array(state["mean"], np.float64), np.array(state["spread"], np.float64)
        self.lately.load_state_dict(state["lately"])
