"""Reduce on plateau: step by step the multiplier that torch's ReduceLROnPlateau gives, and the controller contract."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.controllers import Controller, Plateau
from outlay.knob import Knob
from outlay.schedules import Constant, Linear, Product, Rex, Schedule, Warmup
from outlay.testing import check_controller, check_schedule, record


def watch(plateau: Plateau, losses: list[float]) -> list[float]:
    values = []
    for step, loss in enumerate(losses, start=1):
        plateau.observe(record(step, loss))
        values.append(plateau.value(0.5))
    return values


def torchs(losses: list[float], **options: float | str) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, threshold_mode="rel", eps=0.0, **options)  # type: ignore[arg-type]
    rates = []
    for loss in losses:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


# ---- by hand -------------------------------------------------------------------------------------------------------------------------


def test_waits_for_more_than_patience_observations() -> None:
    assert watch(Plateau(factor=0.5, patience=2), [4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]) == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]


def test_an_improvement_starts_the_wait_anew() -> None:
    assert watch(Plateau(factor=0.5, patience=1), [4.0, 4.0, 3.0, 3.0, 2.0, 2.0, 2.0]) == [1.0] * 6 + [0.5]


def test_an_improvement_must_pass_the_threshold() -> None:
    assert watch(Plateau(factor=0.5, patience=0, threshold=0.25), [4.0, 3.0]) == [1.0, 0.5]
    assert watch(Plateau(factor=0.5, patience=0, threshold=0.25), [4.0, 2.99]) == [1.0, 1.0]
    # the bar stays where the last improvement left it
    assert watch(Plateau(factor=0.5, patience=0, threshold=0.25), [4.0, 3.5, 2.9]) == [1.0, 0.5, 0.5]


def test_rests_after_a_reduction() -> None:
    losses = [1.0] * 8
    assert watch(Plateau(factor=0.5, patience=0), losses) == [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125]
    assert watch(Plateau(factor=0.5, patience=0, cooldown=2), losses) == [1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_stops_at_the_minimum() -> None:
    assert watch(Plateau(factor=0.5, patience=0, minimum=0.3), [1.0] * 4) == [1.0, 0.5, 0.3, 0.3]


def test_large_may_be_good() -> None:
    assert watch(Plateau(factor=0.5, patience=0, mode="max"), [1.0, 2.0, 3.0, 2.0, 4.0]) == [1.0, 1.0, 1.0, 0.5, 0.5]
    assert watch(Plateau(factor=0.5, patience=0, threshold=0.25, mode="max"), [4.0, 5.0]) == [1.0, 0.5]
    assert watch(Plateau(factor=0.5, patience=0, threshold=0.25, mode="max"), [4.0, 5.01]) == [1.0, 1.0]


def test_the_threshold_is_relative_for_negative_values_too() -> None:
    assert watch(Plateau(factor=0.5, patience=0, threshold=0.25), [-4.0, -5.0]) == [1.0, 0.5]
    assert watch(Plateau(factor=0.5, patience=0, threshold=0.25), [-4.0, -5.01]) == [1.0, 1.0]
    assert watch(Plateau(factor=0.5, patience=0, threshold=0.25, mode="max"), [-4.0, -3.0]) == [1.0, 0.5]
    assert watch(Plateau(factor=0.5, patience=0, threshold=0.25, mode="max"), [-4.0, -2.99]) == [1.0, 1.0]


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=1))
def test_progress_does_not_enter(p: float) -> None:
    plateau = Plateau(factor=0.5, patience=0)
    watch(plateau, [1.0, 1.0])
    assert plateau.value(p) == 0.5


# ---- what is watched -----------------------------------------------------------------------------------------------------------------


def test_watches_a_metric_of_evaluations() -> None:
    plateau = Plateau("accuracy", mode="max", factor=0.5, patience=0)
    for step, (loss, accuracy) in enumerate([(1.0, None), (1.0, 0.5), (2.0, None), (9.0, 0.6), (9.0, 0.6)]):
        metrics = {} if accuracy is None else {"accuracy": accuracy}
        plateau.observe(record(step, loss, kind="step" if accuracy is None else "evaluation", metrics=metrics))
    assert plateau.value(0.5) == 0.5


def test_watches_the_gradient_norm() -> None:
    plateau = Plateau("gradient_norm", factor=0.5, patience=0)
    for norm in (1.0, 1.0):
        plateau.observe(record(1, 1.0, gradient_norm=norm))
    assert plateau.value(0.5) == 0.5


@pytest.mark.parametrize("passed_over", [math.nan, math.inf, -math.inf, None])
def test_passes_over_what_it_cannot_judge(passed_over: float | None) -> None:
    plateau = Plateau(factor=0.5, patience=1, cooldown=1)
    for loss in (1.0, passed_over, 1.0, passed_over, passed_over):
        plateau.observe(record(1, loss))
    assert plateau.value(0.5) == 1.0
    assert plateau.state_dict() == {"multiplier": 1.0, "best": 1.0, "waited": 1, "resting": 0}
    plateau.observe(record(2, 1.0))
    assert plateau.value(0.5) == 0.5


# ---- parity --------------------------------------------------------------------------------------------------------------------------

#: few values, so that runs and ties are common; dyadic, so that both ways of writing the threshold are exact
loss_lists = st.lists(st.integers(min_value=1, max_value=12).map(lambda k: k / 8), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(
    losses=loss_lists,
    mode=st.sampled_from(["min", "max"]),
    factor=st.sampled_from([0.5, 0.1, 0.9]),
    patience=st.integers(min_value=0, max_value=4),
    threshold=st.sampled_from([0.0, 1 / 64, 0.125, 0.5]),
    cooldown=st.integers(min_value=0, max_value=4),
    minimum=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_agrees_with_torch(
    losses: list[float], mode: Literal["min", "max"], factor: float, patience: int, threshold: float, cooldown: int, minimum: float
) -> None:
    ours = watch(Plateau("loss", mode, factor, patience, threshold, cooldown, minimum), losses)
    peers = torchs(losses, mode=mode, factor=factor, patience=patience, threshold=threshold, cooldown=cooldown, min_lr=minimum)
    assert ours == peers


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(min_value=0.01, max_value=100), min_size=30, max_size=60), st.sampled_from(["min", "max"]))
def test_agrees_with_torch_by_default(losses: list[float], mode: Literal["min", "max"]) -> None:
    assert watch(Plateau(mode=mode, patience=3), losses) == torchs(losses, mode=mode, patience=3)


# ---- contract ------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=4).map(float), max_size=12), st.integers(0, 2), st.integers(0, 2))
def test_holds_the_contract(losses: list[float], patience: int, cooldown: int) -> None:
    records = [record(step, loss, progress=step / 20) for step, loss in enumerate(losses, start=1)]
    values = check_controller(lambda: Plateau(factor=0.5, patience=patience, cooldown=cooldown), records)
    assert values == [1.0, *watch(Plateau(factor=0.5, patience=patience, cooldown=cooldown), losses)]


@pytest.mark.parametrize("metric", ["loss", "gradient_norm", "accuracy"])
def test_holds_the_contract_whatever_it_watches(metric: str) -> None:
    seen = [3.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    records = [record(step, x, gradient_norm=x, metrics={"accuracy": x}) for step, x in enumerate(seen, start=1)]
    values = check_controller(lambda: Plateau(metric, factor=0.5, patience=1, cooldown=1), records)
    assert values == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_is_a_controller_and_a_schedule() -> None:
    assert isinstance(Plateau(), Controller) and isinstance(Plateau(), Schedule)
    assert not isinstance(Linear(), Controller)


def test_objects_of_different_state_are_equal_as_configs() -> None:
    one, other = Plateau(patience=0), Plateau(patience=0)
    watch(one, [1.0, 1.0])
    assert one == other != Plateau(patience=1)


def test_works_inside_any_wrapper() -> None:
    plateau = Plateau(factor=0.5, patience=0)
    warm, product = Warmup(0.5, plateau), Product((Rex(), plateau, Constant(8.0)))
    check_schedule(warm)
    check_schedule(product)
    before = [warm.value(0.25), warm.value(0.75), product.value(0.5)]
    (found,) = Knob(1.0, warm).controllers()
    for step in (1, 2):
        found.observe(record(step, 1.0))
    assert before == [0.5, 1.0, pytest.approx(16 / 3)]
    assert [warm.value(0.25), warm.value(0.75), product.value(0.5)] == [0.25, 0.5, pytest.approx(8 / 3)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "lowest"}, "mode must be min or max, found 'lowest'"),
        ({"factor": 0.0}, r"factor must lie in \(0, 1\), found 0.0"),
        ({"factor": 1.0}, r"factor must lie in \(0, 1\), found 1.0"),
        ({"patience": -1}, "patience must be >= 0, found -1"),
        ({"threshold": -0.1}, "threshold must be >= 0, found -0.1"),
        ({"cooldown": -1}, "cooldown must be >= 0, found -1"),
        ({"minimum": 1.1}, r"minimum must lie in \[0, 1\], found 1.1"),
        ({"minimum": -0.1}, r"minimum must lie in \[0, 1\], found -0.1"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plateau(**fields)  # type: ignore[arg-type]
