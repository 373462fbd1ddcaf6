"""Examining: the exams on the model as it is, timed and charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlay.sources.base import count_units
from outlay.train.assembly import evaluate

if TYPE_CHECKING:
    from outlay.train.loop import Spending


def sit(run: Spending) -> dict[str, float]:
    """Run the exams, charge what they use to ``eval``, and note how long they took; the results are put nowhere."""
    before = run.meter.spent("seconds")
    run.display.doing("eval")
    with run.meter.spend("eval"):
        metrics = evaluate(run.assembly, run.meter, run.flops_per_position, count_units)
    run.saver.reserve.measured("evaluation", run.meter.spent("seconds") - before)
    return metrics
