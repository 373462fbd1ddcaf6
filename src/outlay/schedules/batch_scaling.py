"""Learning rates that follow the batch size: the linear and the square-root rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import Schedule, require
from outlay.schedules.constant import Constant


@dataclass(frozen=True)
class LinearScaling:
    """Learning rate in proportion to the batch: m(p) = profile(p) b(p), b(p) the batch's multiplier, so that lr / batch follows the profile.

    Put it on the knob ``lr`` and the same ``batch`` schedule on the knob ``batch_size``. The loop rounds a batch to whole examples; with
    ``examples`` the learning rate follows the rounded one: b(p) = max(1, round(examples batch(p))) / examples.

    Args:
        batch: the schedule (or controller) of the knob ``batch_size``; its multiplier is 1 where the peak learning rate was tuned.
        profile: the learning rate's own schedule.
        examples: peak of the knob ``batch_size``, > 0; None follows the schedule without rounding.
    """

    title: ClassVar[str] = "Linear learning-rate scaling with the batch"
    paper: ClassVar[Paper | None] = Paper("1706.02677", "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017)

    batch: Schedule
    profile: Schedule = field(default_factory=Constant)
    examples: int | None = None

    def __post_init__(self) -> None:
        require(self.examples is None or self.examples > 0, f"examples must be > 0, found {self.examples}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        return self.profile.value(progress) * _multiple(self.batch, self.examples, progress)


@dataclass(frozen=True)
class SquareRootScaling:
    """Learning rate in proportion to the root of the batch: m(p) = profile(p) sqrt(b(p)), so that lr / sqrt(batch) follows the profile.

    The rule of adaptive optimizers and of LAMB; it keeps the variance of an update. ``b`` as in linear scaling.

    Args:
        batch: the schedule (or controller) of the knob ``batch_size``, never below 0; its multiplier is 1 where the peak learning rate was
            tuned.
        profile: the learning rate's own schedule.
        examples: peak of the knob ``batch_size``, > 0; None follows the schedule without rounding.
    """

    title: ClassVar[str] = "Square-root learning-rate scaling with the batch"
    paper: ClassVar[Paper | None] = Paper("1904.00962", "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2019)

    batch: Schedule
    profile: Schedule = field(default_factory=Constant)
    examples: int | None = None

    def __post_init__(self) -> None:
        require(self.examples is None or self.examples > 0, f"examples must be > 0, found {self.examples}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        return self.profile.value(progress) * math.sqrt(_multiple(self.batch, self.examples, progress))


def _multiple(batch: Schedule, examples: int | None, progress: float) -> float:
    multiplier = batch.value(progress)
    return multiplier if examples is None else max(1, round(examples * multiplier)) / examples
