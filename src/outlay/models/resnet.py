"""A small residual network for images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from outlay.catalog import Paper
from outlay.models.base import Loaded, seeded


class _Block(nn.Module):
    """y = relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))), the first convolution with the stride, the shortcut 1x1 where shapes differ."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        same = stride == 1 and before == width
        self.shortcut: nn.Module = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.shortcut(x) + self.second_norm(self.second(inner)))


@dataclass(frozen=True)
class ResNet:
    """Residual blocks of two 3x3 convolutions with batch normalisation, global average, linear layer.

    Inputs have shape (examples, channels, height, width). A stem convolution with stride ``stem_stride`` comes first; every stage after the
    first halves height and width.

    Args:
        channels: input channels, > 0.
        classes: number of classes, > 1.
        widths: channels of the stages.
        blocks: residual blocks a stage, > 0.
        stem_stride: stride of the first convolution, > 0; 2 makes everything four times cheaper.
    """

    title: ClassVar[str] = "Small residual network"
    paper: ClassVar[Paper | None] = Paper("1512.03385", "Deep Residual Learning for Image Recognition", 2015)

    channels: int = 1
    classes: int = 10
    widths: tuple[int, ...] = (8, 16)
    blocks: int = 1
    stem_stride: int = 1

    def __post_init__(self) -> None:
        if self.channels <= 0 or self.classes <= 1 or not self.widths or any(width <= 0 for width in self.widths):
            raise ValueError(f"channels and widths must be > 0 and classes > 1, found {self.channels}, {self.widths}, {self.classes}")
        if self.blocks <= 0 or self.stem_stride <= 0:
            raise ValueError(f"blocks and stem_stride must be > 0, found {self.blocks} and {self.stem_stride}")

    def build(self, seed: int) -> Loaded:
        """Return the model with weights drawn from the stream (seed, "model")."""
        with seeded(seed, "model"):
            before = self.widths[0]
            stem = nn.Conv2d(self.channels, before, 3, self.stem_stride, padding=1, bias=False)
            layers: list[nn.Module] = [stem, nn.BatchNorm2d(before), nn.ReLU()]
            for stage, width in enumerate(self.widths):
                for block in range(self.blocks):
                    layers.append(_Block(before, width, stride=2 if stage and not block else 1))
                    before = width
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, self.classes)]
            return Loaded(nn.Sequential(*layers))
