"""Probe: how long a real step takes, measured on the run's own meter."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from outlay.errors import InputError
from outlay.meter import Meter


@dataclass(frozen=True)
class ProbeResult:
    """Seconds of a step, as measured.

    Args:
        seconds: median.
        low: first quartile.
        high: third quartile.
        steps: how many were measured, the warm-up left out.
        ran: how many were run and are to be charged, the warm-up included.
    """

    seconds: float
    low: float
    high: float
    steps: int
    ran: int


def probe(step: Callable[[], None], meter: Meter, steps: int = 5, account: str = "probe") -> ProbeResult:
    """Run one step to warm up and then ``steps`` more, all charged to ``account``, and return how long they take.

    Stops early rather than start a step that, going by the slowest so far, would pass the limit on seconds; when there was no room for a
    step after the warm-up, the warm-up is the measurement. Seconds that the step charges to accounts of its own are counted too.

    Args:
        step: runs one real step and returns when the device has finished it. Putting weights, optimizer and data cursor back afterwards
            is the caller's business, and so are charges in counted units.
        meter: pays.
        steps: measured steps, >= 1.
        account: who pays.

    Raises:
        InputError: when ``steps`` is less than 1.
    """
    if steps < 1:
        raise InputError(f"a probe takes at least 1 step, found {steps}")
    times: list[float] = []
    while len(times) < steps + 1 and (not times or meter.left("seconds") > max(times)):
        before = meter.spent("seconds")
        with meter.spend(account):
            step()
        times.append(meter.spent("seconds") - before)
    measured = times[1:] or times
    if len(measured) == 1:
        return ProbeResult(measured[0], measured[0], measured[0], 1, len(times))
    low, middle, high = statistics.quantiles(measured, n=4, method="inclusive")
    return ProbeResult(middle, low, high, len(measured), len(times))
