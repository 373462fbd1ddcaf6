"""Learning rates that follow the batch: the ratio stays what the profile says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlay
from outlay.controllers import Plateau
from outlay.knob import Knob
from outlay.schedules import Constant, Cosine, Linear, LinearScaling, Sampled, SquareRootScaling
from outlay.testing import check_schedule, record

progress = st.floats(min_value=0, max_value=1)
batches = st.sampled_from([Constant(3.0), Linear(1.0, 8.0), Sampled(Linear(8.0, 1.0), times=4)])


def test_by_hand() -> None:
    batch = Sampled(Linear(4.0, 0.0), times=4)  # 4, 3, 2, 1
    assert [LinearScaling(batch).value(p) for p in (0.0, 0.3, 0.5, 1.0)] == [4.0, 3.0, 2.0, 1.0]
    assert [SquareRootScaling(batch).value(p) for p in (0.0, 0.3, 1.0)] == [2.0, math.sqrt(3.0), 1.0]
    assert LinearScaling(batch, Linear()).value(0.5) == 1.0  # half the profile, twice the batch
    assert SquareRootScaling(Constant(9.0), Constant(0.5)).value(0.2) == 1.5


@given(batches, progress)
def test_lr_over_batch_follows_the_profile(batch: Linear, p: float) -> None:
    profile = Cosine(0.1)
    assert LinearScaling(batch, profile).value(p) / batch.value(p) == pytest.approx(profile.value(p), rel=1e-12)
    assert SquareRootScaling(batch, profile).value(p) / math.sqrt(batch.value(p)) == pytest.approx(profile.value(p), rel=1e-12)


@given(batches, st.integers(1, 64), progress)
def test_with_whole_examples_the_ratio_is_that_of_the_batch_trained(batch: Linear, examples: int, p: float) -> None:
    trained = max(1, round(Knob(examples, batch).value(p)))
    lr = Knob(0.3, LinearScaling(batch, examples=examples)).value(p)
    assert lr / trained == pytest.approx(0.3 / examples, rel=1e-12)
    root = Knob(0.3, SquareRootScaling(batch, examples=examples)).value(p)
    assert root / math.sqrt(trained) == pytest.approx(0.3 / math.sqrt(examples), rel=1e-12)


def test_rounding_is_the_loops() -> None:
    # 3 examples times 0.5 are 1.5, which rounds to 2: two thirds of the peak
    assert LinearScaling(Constant(0.5), examples=3).value(0.0) == pytest.approx(2 / 3)
    assert LinearScaling(Constant(0.5)).value(0.0) == 0.5
    # never fewer than one
    assert LinearScaling(Constant(0.0), examples=4).value(0.0) == 0.25


def test_a_controller_of_the_batch_is_listened_to() -> None:
    lr = Knob(1.0, LinearScaling(Plateau(factor=0.5, patience=0)))
    (inside,) = lr.controllers()
    inside.observe(record(1, 1.0))
    inside.observe(record(2, 1.0))
    assert lr.value(0.0) == 0.5


def test_from_a_recipe() -> None:
    made = outlay.make("schedules/linear_scaling", batch={"linear": {"start": 1, "end": 4}}, profile="cosine", examples=8)
    assert made == LinearScaling(Linear(1.0, 4.0), Cosine(), 8)


@pytest.mark.parametrize("rule", [LinearScaling, SquareRootScaling])
def test_refuses_no_examples(rule: type[LinearScaling]) -> None:
    with pytest.raises(ValueError, match="examples must be > 0, found 0"):
        rule(Constant(), examples=0)


@pytest.mark.parametrize("schedule", [LinearScaling(Linear(1, 4), Cosine()), SquareRootScaling(Sampled(Linear(8, 1)), examples=3)])
def test_holds_the_contract(schedule: LinearScaling) -> None:
    check_schedule(schedule)
