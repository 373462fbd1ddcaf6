"""Variational: the evidence lower bound of an autoencoder, its divergence weighted by beta."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.objectives.base import at_least_single
from outlay.sources.base import Batch


@dataclass(frozen=True)
class Variational:
    """Mean over the examples of -log p(x | z) + beta KL(q(z | x) || N(0, 1)), z drawn by the model; knob ``beta`` >= 0.

    With q(z | x) = N(mu, sigma^2) a dimension, KL = 1/2 sum (mu^2 + sigma^2 - 1 - log sigma^2). The reconstruction is summed over the entries of x:

        bernoulli: -log p = -sum (x log s + (1 - x) log(1 - s)), s = sigmoid(output), for x in [0, 1]
        gaussian:  -log p = sum ((x - output)^2 / (2 deviation^2) + log deviation + log(2 pi) / 2)

    beta = 1 is the evidence lower bound of variational autoencoders; beta > 1 is beta-VAE (Higgins et al., ICLR 2017), and a rising beta is annealing of
    the divergence. At evaluation the model takes the mean for z, so that a held-out loss is not noisy.

    The model is called with ``inputs`` (examples, ...) and returns ``logits`` of the same number of entries, and ``mean`` and ``log_variance``
    (examples, latent).

    Args:
        likelihood: ``gaussian`` for data of any range, as the bundled images are; ``bernoulli`` for data in [0, 1].
        deviation: standard deviation of the Gaussian, > 0; its square is to the reconstruction what beta is to the divergence.
    """

    title: ClassVar[str] = "Evidence lower bound with weighted divergence (beta-VAE)"
    paper: ClassVar[Paper | None] = Paper("1312.6114", "Auto-Encoding Variational Bayes", 2013)
    knobs: ClassVar[dict[str, float]] = {"beta": 1.0}

    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if self.likelihood not in ("gaussian", "bernoulli"):
            raise ValueError(f"likelihood must be gaussian or bernoulli, found {self.likelihood!r}")
        if not 0 < self.deviation < math.inf:
            raise ValueError(f"deviation must be finite and > 0, found {self.deviation}")

    def weight(self, batch: Batch) -> float:
        """Return the number of examples."""
        return float(len(batch["inputs"]))

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss of ``inputs`` (examples, ...), and its two parts ``reconstruction`` and ``divergence``, in nats an example.

        Raises:
            InputError: for a Bernoulli likelihood of data outside [0, 1].
        """
        seen = model(batch["inputs"])
        output, mean, log_variance = (at_least_single(part) for part in (seen.logits, seen.mean, seen.log_variance))
        target = batch["inputs"].flatten(1).to(output.dtype)
        reconstruction = self._reconstruction(output.flatten(1), target)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).flatten(1).sum(1).mean()
        loss = reconstruction + knobs.get("beta", 1.0) * divergence
        return loss, {"reconstruction": reconstruction.detach(), "divergence": divergence.detach()}

    def _reconstruction(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.likelihood == "bernoulli":
            low, high = (float(edge) for edge in torch.aminmax(target))
            if low < 0 or high > 1:
                raise InputError(f"a bernoulli likelihood is of data in [0, 1], found {low:.3g} to {high:.3g}; use likelihood: gaussian")
            return functional.binary_cross_entropy_with_logits(output, target, reduction="none").sum(1).mean()
        constant = math.log(self.deviation) + 0.5 * math.log(2.0 * math.pi)
        return ((target - output) ** 2 / (2.0 * self.deviation**2) + constant).sum(1).mean()
