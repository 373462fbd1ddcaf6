"""Controllers inside products: all are found by the knob, each follows its own records, and the value is the product."""

from __future__ import annotations

import math

import pytest

from outlay.catalog import build
from outlay.controllers import Hypergradient, OpenEnded, Plateau, SpikeBackOff
from outlay.errors import Problem
from outlay.knob import Knob
from outlay.open_ended import Hold
from outlay.schedules import Product, Rex, Warmup
from outlay.testing import record


def test_a_product_of_a_schedule_and_plateau_is_found_and_acts() -> None:
    plateau = Plateau(factor=0.5, patience=0)
    knob = Knob(8.0, Product((Rex(), plateau)))
    assert knob.controllers() == [plateau] and knob.controllers()[0] is plateau
    before = knob.value(0.5)
    for step in (1, 2):
        knob.controllers()[0].observe(record(step, 1.0))
    assert before == pytest.approx(8 * 2 / 3) and knob.value(0.5) == before / 2


def test_several_controllers_in_one_knob_listen_apart() -> None:
    open_ended, back_off, plateau = OpenEnded(Hold(4.0)), SpikeBackOff(factor=0.25, recover=4), Plateau(factor=0.5, patience=0)
    knob = Knob(1.0, Product((Warmup(0.5, Product((open_ended, plateau))), back_off, Hypergradient())))
    found = knob.controllers()
    assert found == [open_ended, plateau, back_off, Hypergradient()]
    for part in found:
        for step, loss in ((1, 1.0), (2, math.nan)):
            part.observe(record(step, loss, outcome="ok" if step == 1 else "skipped"))
    # two steps of four; a spike; the plateau and the hypergradient have not been moved
    assert knob.value(0.75) == 0.5 * 0.25


def test_a_recipe_may_write_the_product() -> None:
    problems: list[Problem] = []
    plain = {"peak": 0.1, "schedule": {"product": {"factors": ["rex", {"plateau": {"patience": 3}}, "spike_back_off"]}}}
    knob = build(Knob, plain, "knobs.lr", problems)
    assert problems == [] and knob.controllers() == [Plateau(patience=3), SpikeBackOff()]
