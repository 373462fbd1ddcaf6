"""The entropy bonus that is paid below a target: its levels by hand, and the controller contract."""

from __future__ import annotations

import math

import pytest

from outlay.controllers import TargetEntropy
from outlay.testing import check_controller, record


def watch(controller: TargetEntropy, seen: list[float]) -> list[float]:
    values = []
    for step, value in enumerate(seen, start=1):
        controller.observe(record(step, 1.0, metrics={"entropy": value}))
        values.append(controller.value(0.5))
    return values


def test_by_hand() -> None:
    # the level rises while the entropy is at or below 0.2 and falls above, where nothing is paid either
    assert watch(TargetEntropy(), [0.1, 0.2, 0.15, 0.3, 0.4, 0.1, 0.5, 0.5, 0.5, 0.1]) == [1, 2, 3, 0, 0, 2, 0, 0, 0, 1]
    assert watch(TargetEntropy(limit=2), [0.1] * 4) == [1, 2, 2, 2]
    assert TargetEntropy().value(0.0) == 0.0 and TargetEntropy(start=3).value(0.0) == 3.0


def test_what_is_passed_over() -> None:
    controller = TargetEntropy(start=1)
    controller.observe(record(1, 5.0))
    assert watch(controller, [math.nan, math.inf]) == [1, 1]


def test_contract() -> None:
    records = [record(i + 1, 1.0, metrics={"entropy": 0.1 if i % 4 else 0.5}) for i in range(20)]
    assert len(set(check_controller(TargetEntropy, records))) > 5


def test_what_is_refused() -> None:
    for wrong, message in (
        (lambda: TargetEntropy(target=0), "target must be > 0"), (lambda: TargetEntropy(start=-1), "start must lie in"),
        (lambda: TargetEntropy(limit=math.inf), "limit must be finite"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()
