"""One cycle: start to 1 over rise, then to end, in two phases or three."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Cosine, Linear, OneCycle, Warmup
from outlay.schedules.one_cycle import Anneal
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)


def test_two_phases_by_hand() -> None:
    schedule = OneCycle(rise=0.4, start=0.2, end=0.1, anneal="linear")
    assert [schedule.value(p) for p in (0.0, 0.2, 0.4, 0.7, 1.0)] == pytest.approx([0.2, 0.6, 1.0, 0.55, 0.1], abs=1e-15)
    wave = OneCycle(rise=0.4, start=0.2, end=0.1)
    assert [wave.value(p) for p in (0.0, 0.1, 0.4, 0.6, 1.0)] == pytest.approx(
        [0.2, 0.2 + 0.8 * (1 - math.sqrt(1 / 2)) / 2, 1.0, 1.0 - 0.9 / 4, 0.1], abs=1e-15
    )


def test_three_phases_by_hand() -> None:
    schedule = OneCycle(rise=0.4, start=0.2, end=0.1, anneal="linear", phases=3)
    assert [schedule.value(p) for p in (0.0, 0.4, 0.6, 0.8, 0.9, 1.0)] == pytest.approx([0.2, 1.0, 0.6, 0.2, 0.15, 0.1], abs=1e-15)


@given(progress)
def test_special_cases(p: float) -> None:
    assert OneCycle(0.3, 0.0, 0.0, "linear").value(p) == pytest.approx(Warmup(0.3, Linear()).value(p), abs=1e-14)
    assert OneCycle(0.25, 1.0, 0.1).value(p) == pytest.approx(Warmup(0.25, Cosine(0.1), initial=1.0).value(p), abs=1e-14)
    assert OneCycle(0.5, 0.2, 0.9, "linear", 3).value(p) == pytest.approx(1.0 - 0.8 * abs(2 * p - 1), abs=1e-14)  # no room to end


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("phases", [2, 3])
@pytest.mark.parametrize(("steps", "rise", "start", "fall"), [(100, 0.3, 25.0, 1e4), (60, 0.45, 4.0, 10.0)])
def test_agrees_with_torch(
    walk: Callable[..., list[float]], anneal: Anneal, phases: Literal[2, 3], steps: int, rise: float, start: float, fall: float
) -> None:
    """The peer counts its phases from step 0 to steps - 1: its peak is at step rise steps - 1."""
    rates = walk(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=1.0, total_steps=steps, pct_start=rise, anneal_strategy="cos" if anneal == "cosine" else "linear",
            div_factor=start, final_div_factor=fall, three_phase=phases == 3, cycle_momentum=False,
        ),
        steps - 1,
    )  # fmt: skip
    schedule = OneCycle((rise * steps - 1) / (steps - 1), 1 / start, 1 / start / fall, anneal, phases)
    assert rates == pytest.approx([schedule.value(t / (steps - 1)) for t in range(steps)], abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rise": 0.0}, r"rise must lie in \(0, 1\), found 0.0"),
        ({"rise": 1.0}, r"rise must lie in \(0, 1\), found 1.0"),
        ({"rise": 0.6, "phases": 3}, "with three phases rise must be at most 0.5, found 0.6"),
        ({"start": 1.5}, r"start must lie in \[0, 1\], found 1.5"),
        ({"end": -0.1}, r"end must lie in \[0, 1\], found -0.1"),
        ({"anneal": "cos"}, "anneal must be one of cosine, linear, found 'cos'"),
        ({"phases": 4}, "phases must be 2 or 3, found 4"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneCycle(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [OneCycle(), OneCycle(phases=3), OneCycle(0.5, anneal="linear", phases=3), OneCycle(5e-324)])
def test_holds_the_contract(schedule: OneCycle) -> None:
    check_schedule(schedule)
