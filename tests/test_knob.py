"""Knobs: a peak times a schedule, and the controllers inside."""

from __future__ import annotations

import math

import pytest

from outlay import InputError, make
from outlay.catalog import build, describe
from outlay.controllers import Plateau
from outlay.errors import Problem
from outlay.knob import Knob
from outlay.schedules import Constant, Linear, Product, Rex, Sampled, Sequence, Warmup
from outlay.testing import record


def test_a_knob_is_its_peak_times_its_schedule() -> None:
    assert Knob(3.0, Rex()).value(0.5) == 3.0 * (2 / 3)
    assert Knob(-2.0, Linear(0.0, 1.0)).value(0.25) == -0.5
    assert Knob(0.1).value(0.7) == 0.1
    assert Knob() == Knob(1.0, Constant(1.0))


@pytest.mark.parametrize("peak", [math.nan, math.inf, -math.inf])
def test_a_peak_is_finite(peak: float) -> None:
    with pytest.raises(ValueError, match=f"peak must be finite, found {peak}"):
        Knob(peak)


class Own:
    """A controller written by a user, not a dataclass."""

    def value(self, progress: float) -> float:
        return 1.0

    def observe(self, record: object) -> None: ...

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None: ...


def test_open_loop_knobs_have_no_controllers() -> None:
    assert Knob(1.0, Warmup(0.1, Sequence((Linear(), Product((Rex(), Constant())))))).controllers() == []


def test_controllers_are_found_however_deep_outermost_first() -> None:
    one, two, three, own = Plateau(), Plateau(patience=2), Plateau(patience=3), Own()
    assert [id(found) for found in Knob(1.0, one).controllers()] == [id(one)]
    nested = Warmup(0.1, Product((Sampled(one, 3), Sequence((two, Linear(), Warmup(0.2, three))), own)))
    found = Knob(1.0, nested).controllers()
    assert [id(each) for each in found] == [id(one), id(two), id(three), id(own)]


def test_a_found_controller_moves_the_knob_it_was_found_in() -> None:
    knob = Knob(8.0, Warmup(0.5, Product((Linear(), Plateau(factor=0.25, patience=0)))))
    (controller,) = knob.controllers()
    before = knob.value(0.25), knob.value(0.75)
    for step, loss in enumerate([1.0, 2.0], start=1):
        controller.observe(record(step, loss))
    assert before == (4.0, 4.0)
    assert (knob.value(0.25), knob.value(0.75)) == (1.0, 1.0)


def test_a_recipe_writes_a_constant_knob_as_a_number() -> None:
    problems: list[Problem] = []
    assert build(Knob, 0.5, "knobs.lr", problems) == Knob(0.5)
    assert build(Knob, 3, "knobs.lr", problems) == Knob(3.0)
    assert build(Knob, {"peak": 0.5, "schedule": "rex"}, "knobs.lr", problems) == Knob(0.5, Rex())
    assert problems == []
    knob = Knob(2.0, make("schedules/warmup", then="rex"))
    assert build(Knob, describe(knob), "", problems) == knob
    for wrong in (True, "fast", {"peek": 1}, {"peak": math.inf}):
        assert build(Knob, wrong, "knobs.lr", problems) is None
    assert [problem.where for problem in problems] == ["knobs.lr", "knobs.lr", "knobs.lr.peek", "knobs.lr"]
    with pytest.raises(InputError, match="did you mean 'peak'"):
        raise InputError(problems)
