"""Features: what estimators read of a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlay.arms import FloatArray, Outcome, plain
from outlay.errors import InputError

#: numbers that a text becomes
WIDTH = 256
#: standardised coordinates are cut off here, lest one that hardly ever moved outweighs all others when it does
CUT = 5.0


def text_features(texts: Sequence[str]) -> FloatArray:
    """Return hashed counts of each text's runs of one, two and three characters, (texts, 256), every row of length 1; zero for an empty text.

    A run's hash says which coordinate it counts toward and with which sign. Nothing is learnt, and every process finds the same.
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    counts = np.zeros(len(texts) * WIDTH)
    for length in (1, 2, 3):
        runs = max(len(codes) - length + 1, 0)
        key = np.zeros(runs, np.uint64)
        for offset in range(length):  # a code point has 21 bits: the key of a run is its own
            key |= codes[offset : offset + runs] << np.uint64(21 * offset)
        within = owner[:runs] == owner[length - 1 : length - 1 + runs]
        hashed, row = _mixed(key[within]), owner[:runs][within]
        sign = 1.0 - 2.0 * ((hashed >> np.uint64(32)) & np.uint64(1)).astype(np.float64)
        counts += np.bincount(row * WIDTH + (hashed % np.uint64(WIDTH)).astype(np.int64), sign, minlength=len(counts))
    found = counts.reshape(len(texts), WIDTH)
    norms = np.sqrt((found**2).sum(1, keepdims=True))
    return found / np.where(norms > 0, norms, 1.0)


def _mixed(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every bit of the key bears on every bit of the result."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def read(features: FloatArray | None, reads: str) -> FloatArray:
    """Return what was handed to an estimator that reads ``reads``.

    Raises:
        InputError: when nothing was.
    """
    if features is None:
        raise InputError(
            f"this estimator reads each question's features ({reads}), but there are none; hand over an array (questions, width)"
        )
    return np.asarray(features, np.float64)


@dataclass
class Latest:
    """The latest questions of which something was judged: what was read of each, and its mean success. The oldest come first.

    Args:
        window: how many are kept, > 0.
        reads: what is read, for messages.
    """

    window: int
    reads: str
    features: FloatArray = field(init=False)
    rates: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.features, self.rates = np.zeros((0, 0)), np.zeros(0)

    def __len__(self) -> int:
        return len(self.rates)

    def add(self, judged: Sequence[Outcome]) -> None:
        """Put judged questions at the end, and drop the oldest.

        Raises:
            InputError: for a question without features.
        """
        self.put(np.array([read(one.features, self.reads) for one in judged]), np.array([one.rate for one in judged]))

    def put(self, features: FloatArray, rates: FloatArray) -> None:
        """Put questions at the end, given as arrays (questions, width) and (questions,)."""
        if len(rates):
            self.features = np.concatenate([self.features.reshape(-1, features.shape[1]), features])[-self.window :]
            self.rates = np.concatenate([self.rates, rates])[-self.window :]

    def state_dict(self) -> dict[str, Any]:
        """Return both arrays."""
        return {"features": plain(self.features), "rates": plain(self.rates)}

    def load_state_dict(self, state: Any) -> None:
        """Take up saved arrays."""
        self.rates = np.array(state["rates"], np.float64)
        self.features = np.array(state["features"], np.float64).reshape(len(self.rates), -1) if len(self.rates) else np.zeros((0, 0))


def standardised(features: FloatArray, mean: FloatArray, variance: FloatArray) -> FloatArray:
    """Return (x - mean) / sqrt(variance) in every coordinate, cut off at -5 and 5; 0 where a coordinate has never differed."""
    still = variance <= 1e-12 * (mean**2 + variance)
    moved = (features - mean) / np.sqrt(np.where(still, 1.0, variance))
    return np.asarray(np.where(still, 0.0, np.clip(moved, -CUT, CUT)), np.float64)


def logistic(values: FloatArray) -> FloatArray:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)), np.float64)
