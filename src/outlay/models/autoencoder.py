"""A variational autoencoder of fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.models.base import Loaded, seeded


class Encoded(NamedTuple):
    """What the autoencoder makes of a batch.

    Args:
        logits: the reconstruction, of the inputs' shape: means of a Gaussian, or logits of Bernoulli probabilities.
        mean: of q(z | x), shape (examples, latent).
        log_variance: of q(z | x), shape (examples, latent).
    """

    logits: torch.Tensor
    mean: torch.Tensor
    log_variance: torch.Tensor


class _Autoencoder(nn.Module):
    def __init__(self, inputs: int, latent: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = _layers((inputs, *hidden, 2 * latent))
        self.decoder = _layers((latent, *reversed(hidden), inputs))

    def forward(self, inputs: torch.Tensor) -> Encoded:
        mean, log_variance = self.encoder(inputs.flatten(1)).chunk(2, dim=1)
        # the loop seeds torch's generator for every piece of a batch, as it does for dropout
        code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean) if self.training else mean
        return Encoded(self.decoder(code).reshape(inputs.shape), mean, log_variance)


def _layers(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class VariationalAutoencoder:
    """Encoder and decoder of fully connected layers with ReLU: z = mu(x) + sigma(x) noise in training, z = mu(x) at evaluation.

    Inputs of any shape are flattened; the reconstruction has their shape. The decoder's widths are the encoder's in reverse.

    Args:
        inputs: number of input features after flattening, > 0.
        latent: dimensions of the code z, > 0.
        hidden: widths of the encoder's hidden layers, each > 0.
    """

    title: ClassVar[str] = "Variational autoencoder"
    paper: ClassVar[Paper | None] = Paper("1312.6114", "Auto-Encoding Variational Bayes", 2013)

    inputs: int
    latent: int = 8
    hidden: tuple[int, ...] = (128,)

    def __post_init__(self) -> None:
        if self.inputs <= 0 or self.latent <= 0 or any(width <= 0 for width in self.hidden):
            raise ValueError(f"inputs, latent and hidden must be > 0, found {self.inputs}, {self.latent} and {self.hidden}")

    def build(self, seed: int) -> Loaded:
        """Return the model with weights drawn from the stream (seed, "model")."""
        with seeded(seed, "model"):
            return Loaded(_Autoencoder(self.inputs, self.latent, tuple(self.hidden)))
