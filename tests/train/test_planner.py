"""The planner: what a plan foretells in counted units is what the run does, and planning creates nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import DOCUMENTS, EXAM, digits, language, plain_stage, weights

import outlay
from outlay.errors import InputError
from outlay.planning.devices import Rate
from outlay.train import planner
from outlay.train.planner import evaluations_to_come

TEXT_EXAM = {"held_out_loss": {"examples": 4}}


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of a known speed: a plan must not hang on how busy this one is."""
    monkeypatch.setattr(planner, "training_rate", lambda device, precision: Rate(1e6, 5e5, 2e6, f"1 MFLOP/s on {device} in {precision}"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: digits(budget="23 steps"),
        lambda: digits(budget="1000 examples", evaluate={"exams": [EXAM]}),
        lambda: digits(budget="1500 examples", evaluate={"exams": [EXAM], "every": 0.5}),
        lambda: digits(budget="9.99e6 flops", evaluate={"exams": [EXAM], "start": False}),
        lambda: language(budget="3k tokens", evaluate={"exams": [TEXT_EXAM], "every": 0.5}),
        lambda: language(budget="$0.003 at $1/M tokens"),
        lambda: digits(budget="400 examples", stages=[plain_stage(share=3), plain_stage(name="more", batch_size=10)]),
    ],
)
def test_counted_budgets_buy_what_was_planned(make: Any, tmp_path: Path) -> None:
    recipe = make()
    plan = outlay.plan(recipe)
    result = outlay.run(recipe, tmp_path / "run")
    assert plan.steps == result.steps and plan.ends_by == result.ended_by
    assert result.plan is not None and result.plan["steps"] == result.steps
    for unit in ("examples", "tokens", "flops"):
        assert plan.amounts.get(unit, 0.0) == pytest.approx(result.accounts["train"].get(unit, 0.0)), unit
    assert [stage.steps for stage in plan.stages] == [stage["steps"] for stage in result.stages]


def test_a_plan_says_what_a_step_takes() -> None:
    plan = outlay.plan(digits(budget="100 steps"))
    flops = 32 * (3 * 2 * (64 * 32 + 32 * 10) - 2 * 64 * 32)
    assert (plan.parameters, plan.trainable, plan.micro_batch, plan.basis) == (2410, 2410, 32, "formula")
    assert plan.flops_per_step == flops and plan.step_seconds == pytest.approx(flops / 1e6) and plan.steps == 100
    assert plan.amounts["seconds"] == pytest.approx(100 * flops / 1e6)
    assert plan.interval["seconds"] == pytest.approx((100 * flops / 2e6, 100 * flops / 5e5))
    assert plan.interval["steps"] == (100.0, 100.0) and plan.ends_by == "steps" and plan.fits
    assert "1 MFLOP/s on cpu in fp32" in plan.notes
    assert plan.memory is not None and plan.memory.weights == 2410 * 4 and plan.memory.optimizer == 2 * 2410 * 4 + 4 * 4


def test_seconds_buy_fewer_steps_on_a_slower_device() -> None:
    plan = outlay.plan(digits(budget="1000s"))
    each = plan.flops_per_step / 1e6
    assert plan.steps is not None and plan.steps * each <= 1000 and (plan.steps + 25) * each > 1000  # setting up takes some seconds
    low, high = plan.interval["steps"]
    assert low == pytest.approx(plan.steps / 2, abs=15) and high == pytest.approx(plan.steps * 2, abs=60)
    assert plan.ends_by == "seconds"


def test_planning_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outlay.plan(digits(budget="10 steps", evaluate={"exams": [EXAM]}), probe=True)
    assert list(tmp_path.iterdir()) == []


def test_a_probe_measures_and_charges(tmp_path: Path) -> None:
    stages = [plain_stage(knobs={"lr": 0.003})]
    recipe = digits(budget="1000 examples", stages=stages, probe_steps=3)
    probed, asked = outlay.plan(recipe), outlay.plan(digits(budget="1000 examples"), probe=True)
    assert (probed.basis, asked.basis) == ("probe", "probe") and probed.notes == ()
    assert probed.steps == (1000 - 4 * 32) // 32 and asked.steps == (1000 - (planner.PROBE_STEPS + 1) * 32) // 32
    assert probed.step_seconds != pytest.approx(probed.flops_per_step / 1e6)
    result = outlay.run(recipe, tmp_path / "run")
    assert result.accounts["probe"]["examples"] == 4 * 32 and result.accounts["probe"]["seconds"] > 0
    assert result.steps == probed.steps and result.plan is not None and result.plan["basis"] == "probe"
    outlay.run(digits(budget=f"{result.steps} steps", stages=stages), tmp_path / "plain")
    assert weights(tmp_path / "run") == weights(tmp_path / "plain")  # the measured steps were put back


def test_the_reserve_is_in_the_plan() -> None:
    plan = outlay.plan(language(budget="3k tokens or 1h", evaluate={"exams": [TEXT_EXAM], "start": False}))
    assert plan.reserve == {"tokens": 4 * 32.0, "seconds": 0.0}
    assert plan.steps == (3000 - 128) // 256


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({}, 0, 0),
        ({"evaluate": {"exams": [EXAM]}}, 1, 0),
        ({"evaluate": {"exams": [EXAM], "start": False, "every": 0.25}}, 3, 3),
        ({"evaluate": {"exams": [EXAM], "every": 0.3}}, 4, 3),
        ({"evaluate": {"exams": [EXAM], "every": 1.0}}, 1, 0),
        ({"evaluate": {"exams": [EXAM], "every": 0.1}, "stages": [plain_stage(), plain_stage(name="more")]}, 20, 19),
    ],
)
def test_evaluations_to_come(changes: dict[str, Any], before: int, after: int) -> None:
    recipe = digits(**changes)
    assert (evaluations_to_come(recipe, False), evaluations_to_come(recipe, True)) == (before, after)


def test_wrong_recipes_are_refused_by_planning_too() -> None:
    with pytest.raises(InputError, match="the budget's ceiling is 100"):
        outlay.plan(digits(budget="10 steps, 100 params"))
    with pytest.raises(InputError, match="do not fill one block"):
        outlay.plan(language(stages=[{"source": {"text": {"texts": list(DOCUMENTS[:2]), "length": 32000}}}]))
