"""A penalty on the divergence from the model as it was when the stage began."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from outlay.anchors.base import Scored
from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.sequences import bounded, knob, shifted
from outlay.sources.base import Batch

Estimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True)
class Kl:
    """coefficient * k_t on every token; knob ``kl``. With l = log pi - log pi_reference of a token drawn from pi:

        k1 = l                      mean KL(pi || reference); large variance
        k2 = l^2 / 2                biased; small variance
        k3 = exp(-l) - 1 + l        mean KL(pi || reference); never negative

    In the reward any of them is a fixed number and pi is led to maximise R - coefficient * KL(pi || reference). In the loss they are
    differentiated, and what counts is the gradient's mean: that of k2 is the gradient of KL(pi || reference), that of k3 the gradient of
    KL(reference || pi), and that of k1 is 0, wherefore it is refused there. ``corrected`` multiplies k by pi / pi_old of the token, gradient and all
    (2512.02556): then the gradient's mean is that of KL(pi || reference) for k1 and k3, also for tokens that an older policy drew. Measure ``kl``: k3.

    Args:
        coefficient: default of the knob, >= 0.
        estimator: which of the three.
        in_reward: take the penalty from the tokens' rewards, once for each generated batch, rather than add it to the loss.
        corrected: weigh every token by its ratio to the policy that drew it (column ``old``, or else ``behaviour``); in the loss alone.
    """

    title: ClassVar[str] = "Divergence from the reference"
    paper: ClassVar[Paper | None] = Paper("1909.08593", "Fine-Tuning Language Models from Human Preferences", 2019)
    needs_reference: ClassVar[bool] = True

    coefficient: float = 0.05
    estimator: Estimator = "k3"
    in_reward: bool = False
    corrected: bool = False

    def __post_init__(self) -> None:
        require(self.coefficient >= 0, f"coefficient must be >= 0, found {self.coefficient}")
        require(self.estimator in ("k1", "k2", "k3"), f"estimator must be k1, k2 or k3, found {self.estimator!r}")
        useless = "the gradient of k1 in the loss is 0 in the mean; take k2 or k3, or in_reward=True"
        require(self.in_reward or self.corrected or self.estimator != "k1", useless)
        require(not (self.in_reward and self.corrected), "a penalty in the reward is not corrected: the estimator's own ratio does that")

    @property
    def knobs(self) -> Mapping[str, float]:
        """``kl`` and its default."""
        return {"kl": self.coefficient}

    def prepare(self, batch: Batch, mask: torch.Tensor) -> Batch:
        """Return the batch itself."""
        return batch

    def penalty(self, scored: Scored, knobs: Mapping[str, float]) -> torch.Tensor:
        """Return coefficient * k_t, (n, T - 1)."""
        found = divergence(_apart(scored), self.estimator)
        if self.corrected:
            drawn = shifted(scored.batch, "old" if "old" in scored.batch else "behaviour")
            found = found * bounded((scored.log_probs - drawn) * scored.mask).exp()
        return knob(knobs, "kl", self.coefficient) * found

    def measures(self, scored: Scored) -> dict[str, torch.Tensor]:
        """Return ``kl``."""
        return {"kl": divergence(_apart(scored), "k3")}


def divergence(log_ratio: torch.Tensor, estimator: Estimator) -> torch.Tensor:
    """Return k1, k2 or k3 of l = log pi - log pi_reference; any shape."""
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio**2
    return torch.expm1(-log_ratio) + log_ratio


def _apart(scored: Scored) -> torch.Tensor:
    return bounded((scored.log_probs - shifted(scored.batch, "reference")) * scored.mask)
