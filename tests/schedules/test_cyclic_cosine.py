"""Cyclic cosine: one cycle up to each budget point."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Cosine, CosineRestarts, CyclicCosine, Sequence
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)


def test_values_by_hand() -> None:
    schedule = CyclicCosine()
    assert [schedule.value(p) for p in (0.0, 0.25, 0.5)] == [1.0, 1.0, 1.0]
    assert [schedule.value(p) for p in (0.125, 0.375, 0.75)] == pytest.approx([0.55] * 3, abs=1e-12)
    assert [schedule.value(p - 1e-7) for p in (0.25, 0.5, 1.0)] == pytest.approx([0.1] * 3, abs=1e-9)
    assert schedule.value(1.0) == 0.1
    assert CyclicCosine((0.4,), 0.2).value(0.6) == pytest.approx(0.8, abs=1e-12)  # a third of the second cycle


@given(progress)
def test_special_cases(p: float) -> None:
    assert CyclicCosine(()).value(p) == CyclicCosine((1.0,)).value(p) == Cosine(0.1).value(p)
    pieces = Sequence((Cosine(0.1),) * 3, (1.0, 1.0, 2.0))
    assert CyclicCosine().value(p) == pytest.approx(pieces.value(p), abs=1e-12)
    assert CyclicCosine((1 / 7, 3 / 7), 0.1).value(p) == pytest.approx(CosineRestarts(3, 2.0, 0.1).value(p), abs=1e-9)


def test_a_step_at_a_budget_point_is_back_at_the_peak_however_its_progress_is_rounded() -> None:
    for steps in range(3, 200):
        for step in range(1, steps):
            schedule = CyclicCosine((math.nextafter(step / steps, 1.0),))
            assert schedule.value(math.nextafter(step / steps, 0.0)) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"at": (0.0,)}, r"every point of at must lie in \(0, 1\], found \(0.0,\)"),
        ({"at": (0.5, 0.5)}, r"the points of at must rise, found \(0.5, 0.5\)"),
        ({"floor": -0.1}, r"floor must lie in \[0, 1\], found -0.1"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CyclicCosine(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [CyclicCosine(), CyclicCosine((), 0.0), CyclicCosine((1e-6, 1 - 1e-12))])
def test_holds_the_contract(schedule: CyclicCosine) -> None:
    check_schedule(schedule)
