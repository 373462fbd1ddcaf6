"""Images: classification data bundled with scikit-learn or a package registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from outlay.catalog import Paper
from outlay.context import Context
from outlay.sources.arrays import Columns
from outlay.sources.base import Shuffled, Stream


@dataclass(frozen=True)
class Images:
    """Labelled inputs ``inputs`` (examples, ...) float32 and ``labels`` (examples,) int64, with a fixed test part.

    Args:
        name: ``digits`` (1,797 images of 8x8, no download), ``mnist`` (70,000 of 28x28), ``mnist1d`` (5,000 curves of 40 points).
        channels: put a channel dimension of 1 before the image's own, for convolutions.
    """

    title: ClassVar[str] = "Images to classify"
    paper: ClassVar[Paper | None] = None
    units: ClassVar[tuple[str, ...]] = ("examples",)

    name: Literal["digits", "mnist", "mnist1d"] = "digits"
    channels: bool = False

    def open(self, context: Context) -> Stream:
        """Return the training images in a shuffled order."""
        return Shuffled(self._columns("train"), context)

    def held_out(self, context: Context) -> Columns:
        """Return the test images."""
        return self._columns("test")

    def _columns(self, part: Literal["train", "test"]) -> Columns:
        from outlay.tasks.images import load

        arrays = load(self.name)
        inputs, labels = (arrays.train_x, arrays.train_y) if part == "train" else (arrays.test_x, arrays.test_y)
        shaped = torch.from_numpy(inputs)
        return Columns({"inputs": shaped.unsqueeze(1) if self.channels else shaped, "labels": torch.from_numpy(labels)})
