"""Multigrid: coarse and large batches first, fine and small ones last, at a constant cost an update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar, Literal

from outlay.catalog import Paper
from outlay.schedules.base import require

#: the paper's long cycle: (tokens or frames, pixels a side) relative to the full shape
LONG_FACTORS = ((0.25, 0.5**0.5), (0.5, 0.5**0.5), (0.5, 1.0), (1.0, 1.0))
#: the same costs for text, which has a length alone
TEXT_FACTORS = ((0.125, 1.0), (0.25, 1.0), (0.5, 1.0), (1.0, 1.0))
#: the same costs for images, which have pixels alone
IMAGE_FACTORS = ((1.0, 0.125**0.5), (1.0, 0.5), (1.0, 0.5**0.5), (1.0, 1.0))
#: the paper's short cycle: pixels a side relative to the full shape; the third mini-batch has the long cycle's own
SHORT_FACTORS = (0.5, 0.5**0.5)
#: where the baseline of SlowFast on Kinetics lowers its learning rate, as shares of its 239 epochs
STEPS = (94 / 239, 154 / 239, 196 / 239)


@dataclass(frozen=True)
class LongStage:
    """One stretch of a long cycle.

    Args:
        fall: how often the baseline's learning rate has fallen before.
        time: frames or tokens relative to the full shape.
        space: pixels a side relative to the full shape.
        batch: batch relative to the full shape's, round(1 / (time space^2)).
        average_batch: mean batch over the short cycle, relative to the full shape's.
        epochs: passes over the data.
        iterations: updates, in those that the baseline makes an epoch.
    """

    fall: int
    time: float
    space: float
    batch: int
    average_batch: float
    epochs: float
    iterations: float


def long_stages(
    steps: Sequence[float], epochs: float, factors: Sequence[tuple[float, float]] = LONG_FACTORS,
    short: Sequence[float] = SHORT_FACTORS, epoch_factor: float = 1.5,
) -> tuple[LongStage, ...]:  # fmt: skip
    """Return how a baseline's epochs are laid out over the shapes.

    For each stretch j of E_j epochs between two falls of the baseline's learning rate and each shape i of average batch a_i:

        e_ji = E_j a_i / sum_i a_i,  i.e. E_j / sum_i a_i baseline iterations, the same for every shape

    After the last fall comes the fine-tuning phase in the last shape: E_last n / (sum_i a_i) iterations for n shapes, the saving of the rest.
    Everything is then stretched so that the epochs add up to ``epochs * epoch_factor``.

    Args:
        steps: epochs at which the baseline's learning rate falls, rising, in (0, epochs).
        epochs: of the baseline.
        factors: (time, space) of the shapes, in (0, 1], the last one the shape of the fine-tuning phase.
        short: space factors of the short cycle, in (0, 1], never taken above the long cycle's; empty for no short cycle.
        epoch_factor: epochs relative to the baseline's, > 0.
    """
    averages = [_average_batch(time, space, short) for time, space in factors]
    total = math.fsum(averages)
    rough = [
        (fall, shape, (end - start) * averages[i] / total, averages[i])
        for fall, (start, end) in enumerate(pairwise((0.0, *steps)))
        for i, shape in enumerate(factors)
    ]
    tuned = (epochs - steps[-1]) * len(factors) / total * averages[-1]
    rough.append((len(steps), factors[-1], tuned, averages[-1]))
    stretch = epochs * epoch_factor / math.fsum(entry[2] for entry in rough)
    return tuple(
        LongStage(fall, *shape, _batch(*shape), average, taken * stretch, taken * stretch / average)
        for fall, shape, taken, average in rough
    )


def whole_epochs(stages: Sequence[LongStage]) -> tuple[int, ...]:
    """Return the epochs at which the stages end, rounded cumulatively as the paper's code does."""
    return tuple(round(end) for end in accumulate(stage.epochs for stage in stages))


def _batch(time: float, space: float) -> int:
    return round(1.0 / (time * space * space))


def _average_batch(time: float, space: float, short: Sequence[float]) -> float:
    sizes = [*(min(factor, space) for factor in short), space]
    return math.fsum(_batch(time, size) for size in sizes) / len(sizes)


@dataclass(frozen=True)
class LongCycle:
    """Multigrid's long cycle: shapes from coarse to full, once in every stretch between two falls of the baseline's learning rate.

    With time and space factors (t, s) the batch's multiplier is round(1 / (t s^2)), so that batch x time x space^2 stays constant: 8, 4, 2, 1.
    One instance a knob, alike but for ``reads``. The stretches' lengths follow ``long_stages``. Where the budget counts what an update
    costs (FLOPs, seconds, steps, tokens), progress is that of iterations and every shape gets the same share; where it counts
    examples, the share goes with the average batch.

    After the last fall the last shape stays. ``rate`` is the paper's own learning rate: gamma^falls times the batch's multiplier (linear scaling),
    the last fall in the middle of the fine-tuning phase; for any other profile put ``reads: batch`` into ``linear_scaling``. Normalisation
    over a fixed number of examples and the coarser sampling of frames belong to the model and to the source, and are not part of this.

    Args:
        reads: which multiplier this is.
        factors: (time, space) of the shapes relative to the full one, each in (0, 1].
        steps: where the baseline's learning rate falls, as shares of its epochs, rising, in (0, 1); the defaults are those of SlowFast on
            Kinetics (94, 154 and 196 of 239 epochs). One step is one long cycle.
        short: space factors of a short cycle beside this one, each in (0, 1]; they enter only the shares on the clock of examples.
        clock: what progress counts.
        gamma: factor of a fall, in (0, 1].
    """

    title: ClassVar[str] = "Multigrid long cycle"
    paper: ClassVar[Paper | None] = Paper("1912.00998", "A Multigrid Method for Efficiently Training Video Models", 2019)

    reads: Literal["batch", "time", "space", "rate"] = "batch"
    factors: tuple[tuple[float, float], ...] = LONG_FACTORS
    steps: tuple[float, ...] = STEPS
    short: tuple[float, ...] = ()
    clock: Literal["iterations", "examples"] = "iterations"
    gamma: float = 0.1

    def __post_init__(self) -> None:
        require(self.reads in ("batch", "time", "space", "rate"), f"reads must be batch, time, space or rate, found {self.reads!r}")
        require(self.clock in ("iterations", "examples"), f"clock must be iterations or examples, found {self.clock!r}")
        require(len(self.factors) >= 1, "factors must hold at least one (time, space), found none")
        require(all(0 < one <= 1 for pair in self.factors for one in pair), f"every factor must lie in (0, 1], found {self.factors}")
        require(all(0 < one <= 1 for one in self.short), f"every short factor must lie in (0, 1], found {self.short}")
        inside = len(self.steps) >= 1 and all(0 < step < 1 for step in self.steps)
        require(
            inside and list(self.steps) == sorted(set(self.steps)),
            f"steps must rise within (0, 1), at least one of them, found {self.steps}",
        )
        require(0 < self.gamma <= 1, f"gamma must lie in (0, 1], found {self.gamma}")

    def stages(self) -> tuple[LongStage, ...]:
        """Return the stretches for a baseline of one epoch."""
        return long_stages(self.steps, 1.0, self.factors, self.short, 1.0)

    def ends(self) -> tuple[float, ...]:
        """Return the progress at which each stretch ends, the last one 1."""
        spent = [stage.iterations if self.clock == "iterations" else stage.epochs for stage in self.stages()]
        total = math.fsum(spent)
        return (*(math.fsum(spent[: i + 1]) / total for i in range(len(spent) - 1)), 1.0)

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        stages, ends = self.stages(), self.ends()
        # 1e-9 lets a stretch of a quarter end where progress is 0.25, whatever the last bit of either
        index = next((i for i, end in enumerate(ends[:-1]) if progress < end - 1e-9), len(ends) - 1)
        stage = stages[index]
        if self.reads == "time":
            return stage.time
        if self.reads == "space":
            return stage.space
        if self.reads == "batch":
            return float(stage.batch)
        waiting = index == len(ends) - 1 and progress < (ends[-2] + 1.0) / 2 - 1e-9
        return self.gamma ** (stage.fall - waiting) * stage.batch
