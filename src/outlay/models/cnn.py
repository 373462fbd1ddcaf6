"""A small convolutional network for classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from outlay.catalog import Paper
from outlay.models.base import Loaded, seeded


@dataclass(frozen=True)
class Cnn:
    """Blocks of (3x3 convolution, batch normalisation, ReLU, 2x2 pooling), global average, linear layer.

    Inputs have shape (examples, channels, height, width).

    Args:
        channels: input channels, > 0.
        classes: number of classes, > 1.
        widths: channels of the blocks; every block halves height and width.
    """

    title: ClassVar[str] = "Small convolutional network"
    paper: ClassVar[Paper | None] = None

    channels: int = 1
    classes: int = 10
    widths: tuple[int, ...] = (16, 32)

    def __post_init__(self) -> None:
        if self.channels <= 0 or self.classes <= 1 or not self.widths or any(width <= 0 for width in self.widths):
            raise ValueError(f"channels and widths must be > 0 and classes > 1, found {self.channels}, {self.widths}, {self.classes}")

    def build(self, seed: int) -> Loaded:
        """Return the model with weights drawn from the stream (seed, "model")."""
        with seeded(seed, "model"):
            layers: list[nn.Module] = []
            before = self.channels
            for width in self.widths:
                layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
                before = width
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, self.classes)]
            return Loaded(nn.Sequential(*layers))
