"""Multigrid for a recipe: the knobs of batch, shape and learning rate that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from outlay.controllers.short_cycle import ShortCycle
from outlay.knob import Knob
from outlay.schedules.base import Schedule
from outlay.schedules.batch_scaling import LinearScaling
from outlay.schedules.multigrid import IMAGE_FACTORS, SHORT_FACTORS, STEPS, TEXT_FACTORS, LongCycle

#: short cycle of text: the sizes whose cost falls as that of ``SHORT_FACTORS`` does for images
TEXT_SHORT_FACTORS = (0.25, 0.5)


def multigrid_text(
    batch_size: int, length: int, lr: float, *, profile: Schedule | None = None, steps: Sequence[float] = STEPS, short: bool = False
) -> dict[str, Knob]:
    """Return the knobs ``batch_size``, ``length`` and ``lr`` of multigrid training on text (arXiv 1912.00998).

    The long cycle has rows of 1/8, 1/4, 1/2 and all of the length. ``batch_size`` stays, since the loop cuts the drawn rows: there are 8, 4, 2
    and 1 times as many sequences, and as many tokens an update throughout. The learning rate is scaled by those multiples. Pass it on as
    ``Stage(knobs=...)``; a budget in FLOPs, seconds, steps, tokens or examples keeps the paper's shares.

    Args:
        batch_size: rows drawn an update, > 0.
        length: tokens a row of the source, best a multiple of 8.
        lr: learning rate at the full length.
        profile: its schedule; None for the paper's, a fall to a tenth at each step.
        steps: shares of the budget at which the baseline's learning rate falls; each is a long cycle.
        short: also change the length with every update, 1/4, 1/2 and the long cycle's own in turn.
    """
    long = LongCycle("time", TEXT_FACTORS, tuple(steps))
    rows: Schedule = ShortCycle("size", long, factors=TEXT_SHORT_FACTORS, power=1.0) if short else long
    return {
        "batch_size": Knob(batch_size),
        "length": Knob(length, rows),
        "lr": Knob(lr, _rate(TEXT_FACTORS, tuple(steps), (), "iterations", profile)),
    }


def multigrid_images(
    batch_size: int, resolution: int, lr: float, *, profile: Schedule | None = None, steps: Sequence[float] = STEPS, short: bool = False,
    clock: Literal["iterations", "examples"] = "iterations",
) -> dict[str, Knob]:  # fmt: skip
    """Return the knobs ``batch_size``, ``resolution`` and ``lr`` of multigrid training on images (arXiv 1912.00998).

    The long cycle has 1/8, 1/4, 1/2 and all of the pixels and 8, 4, 2 and 1 times the batch. The learning rate is scaled by the long cycle's
    batch multiple.

    Args:
        batch_size: images an update at full resolution, > 0.
        resolution: pixels a side of the source's images.
        lr: learning rate at full resolution.
        profile: its schedule; None for the paper's, a fall to a tenth at each step.
        steps: shares of the baseline's epochs at which its learning rate falls; each is a long cycle.
        short: also change the resolution with every update: 1/2, 1/sqrt(2) and the long cycle's own in turn, never above the last.
        clock: ``examples`` when the budget counts examples, else ``iterations``.
    """
    inner = SHORT_FACTORS if short else ()
    many, side = (LongCycle(reads, IMAGE_FACTORS, tuple(steps), inner, clock) for reads in ("batch", "space"))
    return {
        "batch_size": Knob(batch_size, ShortCycle("batch", side, many) if short else many),
        "resolution": Knob(resolution, ShortCycle("size", side) if short else side),
        "lr": Knob(lr, _rate(IMAGE_FACTORS, tuple(steps), inner, clock, profile)),
    }


def _rate(
    factors: tuple[tuple[float, float], ...], steps: tuple[float, ...], short: tuple[float, ...],
    clock: Literal["iterations", "examples"], profile: Schedule | None,
) -> Schedule:  # fmt: skip
    if profile is None:
        return LongCycle("rate", factors, steps, short, clock)
    return LinearScaling(LongCycle("batch", factors, steps, short, clock), profile)
