"""A multi-layer perceptron for classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from outlay.catalog import Paper
from outlay.models.base import Loaded, seeded


@dataclass(frozen=True)
class Mlp:
    """Fully connected layers with ReLU between them: inputs of any shape are flattened, logits come out.

    Args:
        inputs: number of input features after flattening, > 0.
        classes: number of classes, > 1.
        hidden: widths of the hidden layers.
        dropout: probability of dropping a hidden unit, in [0, 1); the knob ``dropout`` may change it during the run.
    """

    title: ClassVar[str] = "Multi-layer perceptron"
    paper: ClassVar[Paper | None] = None

    inputs: int
    classes: int
    hidden: tuple[int, ...] = (128,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.inputs <= 0 or self.classes <= 1 or any(width <= 0 for width in self.hidden):
            raise ValueError(f"inputs and hidden must be > 0 and classes > 1, found {self.inputs}, {self.hidden}, {self.classes}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), found {self.dropout}")

    def build(self, seed: int) -> Loaded:
        """Return the model with weights drawn from the stream (seed, "model")."""
        with seeded(seed, "model"):
            layers: list[nn.Module] = [nn.Flatten()]
            width = self.inputs
            for wide in self.hidden:
                layers += [nn.Linear(width, wide), nn.ReLU(), nn.Dropout(self.dropout)]
                width = wide
            layers.append(nn.Linear(width, self.classes))
            return Loaded(nn.Sequential(*layers))
