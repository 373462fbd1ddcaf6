"""Contract check of the open-ended family."""

from __future__ import annotations

import math
import random

from outlay.open_ended.base import OpenSchedule
from outlay.testing.plain import _check_rebuilt, _described, _hold

#: where open schedules are read: a fine grid of decades, from the smallest amount to far more than anybody will spend
AMOUNTS: tuple[float, ...] = tuple(
    sorted({0.0, 5e-324, 1e-12} | {10 ** (k / 20) for k in range(-40, 361)} | {float(n) for n in range(1001)})
)


def check_open_schedule(schedule: OpenSchedule) -> None:
    """Check the open-ended seam: in [0, 1] at every amount, pure, without state, and rebuilt equal from its description.

    Args:
        schedule: any object with ``at``; where it is a dataclass, its description in the catalog's plain values is checked as well.

    Raises:
        AssertionError: naming the rule, the schedule, the amount and the values.
    """
    name = repr(schedule)
    _hold(isinstance(schedule, OpenSchedule), "an open schedule has at(amount)", f"found {name}")
    for attribute in ("state_dict", "load_state_dict", "observe", "value"):
        rule = "an open schedule keeps nothing, listens to nothing and knows no progress (OpenEnded makes a knob of it)"
        _hold(not hasattr(schedule, attribute), rule, f"{name} has {attribute}")
    before = _described(schedule)
    first = {amount: _reading(schedule, amount) for amount in AMOUNTS}
    for order, points in (("falling", AMOUNTS[::-1]), ("any", random.Random(0).sample(AMOUNTS, len(AMOUNTS)))):
        for amount in points:
            again = _reading(schedule, amount)
            seen = f"{name} at {amount!r} gave {first[amount]!r} and, read again in {order} order, {again!r}"
            _hold(again == first[amount], "the same amount gives the same value", seen)
    after = _described(schedule)
    _hold(after == before, "reading an open schedule changes nothing in it", f"{name} was {before} and became {after}")
    _check_rebuilt(schedule)


def _reading(schedule: OpenSchedule, amount: float) -> float:
    value = schedule.at(amount)
    seen = f"{schedule!r} at the amount {amount!r} gave {value!r}"
    _hold(isinstance(value, int | float) and not isinstance(value, bool), "an open schedule's value is a number", seen)
    _hold(math.isfinite(value) and 0.0 <= value <= 1.0, "an open schedule stays in [0, 1], whatever has been spent", seen)
    return value
