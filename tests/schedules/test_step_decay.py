"""Step decay: m(p) = factor^(milestones passed)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Constant, Sequence, StepDecay
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)


def test_30_60_90() -> None:
    values = [StepDecay().value(p) for p in (0.0, 0.29, 0.3, 0.59, 0.6, 0.89, 0.9, 1.0)]
    assert values == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-12)


@given(progress)
def test_is_a_sequence_of_constants(p: float) -> None:
    pieces = Sequence((Constant(1.0), Constant(0.1), Constant(0.01), Constant(0.001)), (0.3, 0.3, 0.3, 0.1))
    assert StepDecay().value(p) == pytest.approx(pieces.value(p), rel=1e-12)


@pytest.mark.parametrize(
    ("steps", "milestones", "factor"), [(100, (30, 60, 90), 0.1), (37, (5, 6, 20), 0.5), (10, (), 0.1), (7, (7,), 0.3)]
)
def test_agrees_with_torch(walk: Callable[..., list[float]], steps: int, milestones: tuple[int, ...], factor: float) -> None:
    rates = walk(lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, list(milestones), gamma=factor), steps)
    schedule = StepDecay(tuple(milestone / steps for milestone in milestones), factor)
    assert rates == pytest.approx([schedule.value(t / steps) for t in range(steps + 1)], rel=1e-12)


def test_a_step_falls_at_its_milestone_however_its_progress_is_rounded() -> None:
    for steps in range(1, 200):
        for step in range(1, steps):
            below, above = math.nextafter(step / steps, 0.0), math.nextafter(step / steps, 1.0)
            assert StepDecay((above,)).value(below) == 0.1


def test_special_cases() -> None:
    assert StepDecay(()).value(1.0) == 1.0
    assert [StepDecay((0.5,), 0.0).value(p) for p in (0.4, 0.5)] == [1.0, 0.0]
    assert StepDecay((0.5,), 1.0).value(0.9) == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"milestones": (0.0, 0.5)}, r"every milestone must lie in \(0, 1\], found \(0.0, 0.5\)"),
        ({"milestones": (0.5, 1.1)}, r"every milestone must lie in \(0, 1\]"),
        ({"milestones": (math.nan,)}, r"every milestone must lie in \(0, 1\]"),
        ({"milestones": (0.6, 0.3)}, r"milestones must rise, found \(0.6, 0.3\)"),
        ({"milestones": (0.3, 0.3)}, "milestones must rise"),
        ({"factor": -0.1}, r"factor must lie in \[0, 1\], found -0.1"),
        ({"factor": 1.1}, r"factor must lie in \[0, 1\], found 1.1"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepDecay(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [StepDecay(), StepDecay(()), StepDecay((0.5, 1.0), 0.0)])
def test_holds_the_contract(schedule: StepDecay) -> None:
    check_schedule(schedule)
