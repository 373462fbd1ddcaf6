"""Probe: time a few real steps, and charge them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from outlay.meter import Meter

ACCOUNT = "probe"


@dataclass(frozen=True)
class ProbeResult:
    """Seconds of measured steps.

    Args:
        seconds: the median.
        low: the quickest.
        high: the slowest.
        steps: how many were timed.
    """

    seconds: float
    low: float
    high: float
    steps: int


def probe(step: Callable[[], None], meter: Meter, steps: int = 5, account: str = ACCOUNT) -> ProbeResult:
    """Run ``step`` once to warm up and ``steps`` times on the clock, all charged to ``account``.

    Putting back what the steps changed is the caller's business.
    """
    times = []
    with meter.spend(account):
        step()
        for _ in range(steps):
            began = meter.spent("seconds")
            step()
            times.append(meter.spent("seconds") - began)
    return ProbeResult(statistics.median(times), min(times), max(times), steps)
