"""Recipes: what is refused, all of it together, and what plain numbers become."""

from __future__ import annotations

from typing import Any

import pytest

from outlay.budget import Budget
from outlay.controllers import Plateau
from outlay.errors import InputError
from outlay.knob import Knob
from outlay.models.mlp import Mlp
from outlay.objectives import Classification
from outlay.optim import Sgd
from outlay.schedules import Constant, Rex
from outlay.sources.images import Images
from outlay.sources.text import Text
from outlay.train import Checkpoints, Evaluate, Health, Recipe, Stage
from outlay.train.recipe import LOOP_KNOBS

TEXT = Text(texts=("a text",))


def recipe(budget: Any = "10 steps", **changes: Any) -> Recipe:
    fields: dict[str, Any] = {"model": Mlp(64, 10), "stages": (Stage(Images(), objective=Classification()),)}
    return Recipe(budget, **{**fields, **changes})


def problems(error: pytest.ExceptionInfo[InputError]) -> dict[str, str]:
    return {problem.where: problem.message for problem in error.value.problems}


def test_a_number_becomes_a_constant_knob_and_a_schedule_one_of_peak_1() -> None:
    watching = Plateau()
    stage = Stage(Images(), knobs={"lr": 0.25, "clip": 3, "weight_decay": Rex(), "batch_size": watching, "dropout": Knob(0.5, Rex())})  # type: ignore[dict-item]
    assert stage.knobs["lr"] == Knob(0.25, Constant()) and stage.knobs["lr"].value(0.7) == 0.25
    assert stage.knobs["clip"] == Knob(3.0) and isinstance(stage.knobs["clip"].peak, float)
    assert stage.knobs["weight_decay"] == Knob(1.0, Rex())
    assert stage.knobs["batch_size"].controllers() == [watching]
    assert stage.knobs["dropout"] == Knob(0.5, Rex())


def test_a_stage_takes_the_knobs_of_its_parts_and_of_the_loop() -> None:
    stage = Stage(Images(), objective=Classification(), optimizer=Sgd())
    assert sorted(stage.accepted_knobs()) == sorted(["lr", "weight_decay", "momentum", "label_smoothing", *LOOP_KNOBS])
    Stage(Images(), optimizer=Sgd(), knobs={"momentum": 0.5})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="no part of this stage reads the knob 'momentum'"):
        Stage(Images(), knobs={"momentum": 0.5})  # type: ignore[dict-item]


def test_all_that_is_wrong_with_a_stage_is_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        Stage(Images(), share=float("inf"), batch_size=0, knobs={"learning_rate": 0.1, "lable_smoothing": 0.1})  # type: ignore[dict-item]
    told = problems(error)
    assert set(told) == {"share", "batch_size", "knobs.learning_rate", "knobs.lable_smoothing"}
    assert "did you mean 'label_smoothing'" in told["knobs.lable_smoothing"]
    assert told["batch_size"] == "must be > 0, found 0" and "found inf" in told["share"]


@pytest.mark.parametrize("share", [0, -1, float("nan")])
def test_a_share_is_a_finite_number_above_0(share: float) -> None:
    with pytest.raises(InputError, match="must be a finite number > 0"):
        Stage(Images(), share=share)


def test_a_budget_is_read_from_text_and_stages_become_a_tuple() -> None:
    made = recipe("2m or 500 steps", stages=[Stage(Images())])
    assert made.budget == Budget({"seconds": 120.0, "steps": 500.0})
    assert isinstance(made.stages, tuple) and len(made.stages) == 1


def test_all_that_is_wrong_with_a_recipe_is_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        recipe(
            "5k tokens or 20 rollouts",
            name="a/b",
            seed=-1,
            micro_batch=0,
            threads=-2,
            probe_steps=-3,
            stages=(Stage(Images()), Stage(Images())),
        )
    messages = [str(problem) for problem in error.value.problems]
    assert len(messages) == 8
    for expected in (
        "name: names a directory",
        "stages: the stage name 'train' is used 2 times",
        "seed: must be >= 0, found -1",
        "micro_batch: must be > 0, found 0",
        "threads: must be > 0, found -2",
        "probe_steps: must be >= 0, found -3",
        "budget: limits tokens, but no stage spends any; its sources spend steps, seconds, flops, usd, examples",
        "budget: limits rollouts, but no stage spends any",
    ):
        assert sum(message.startswith(expected) for message in messages) == 1, expected


def test_a_unit_that_some_stage_spends_is_accepted() -> None:
    stages = (Stage(Images(), name="see"), Stage(TEXT, name="read"))
    assert recipe("5k tokens", stages=stages).budget.limits == {"tokens": 5000.0}
    for unit in ("steps", "examples", "flops"):
        assert recipe(f"100 {unit}").budget.limits == {unit: 100.0}
    with pytest.raises(InputError, match="limits rollouts, but no stage spends any; its sources spend .*examples, tokens"):
        recipe("7 rollouts", stages=stages)


def test_a_budget_must_end_the_run() -> None:
    with pytest.raises(InputError, match="the run would never end"):
        recipe("24GiB")


def test_money_by_the_token_needs_a_stage_with_tokens() -> None:
    with pytest.raises(InputError, match="priced by the token, but no stage spends tokens"):
        recipe("$1 at $0.5/M tokens")
    assert recipe("$1 at $0.5/M tokens", stages=(Stage(TEXT),)).budget.price is not None
    assert recipe("$1 at $2/h").budget.price is not None


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a\\b", "nul\0"])
def test_a_name_must_name_a_directory(name: str) -> None:
    with pytest.raises(InputError, match="names a directory"):
        recipe(name=name)


def test_a_recipe_needs_a_stage() -> None:
    with pytest.raises(InputError) as error:
        recipe(stages=())
    assert [str(problem) for problem in error.value.problems] == ["stages: a recipe needs at least one stage, found none"]


@pytest.mark.parametrize("every", [0.0, -0.1, 1.01, float("nan")])
def test_evaluating_every_needs_a_share(every: float) -> None:
    assert Evaluate(every=1.0).every == 1.0
    with pytest.raises(ValueError, match=r"every must lie in \(0, 1\]"):
        Evaluate(every=every)


@pytest.mark.parametrize("wrong", [{"every_steps": 0}, {"every_seconds": 0.0}, {"most": 0.0}, {"most": 1.1}, {"keep": 0}])
def test_checkpoints_are_refused_out_of_range(wrong: dict[str, Any]) -> None:
    Checkpoints(every_steps=1, every_seconds=0.1, most=1.0, keep=1)
    with pytest.raises(ValueError, match="must be > 0"):
        Checkpoints(**wrong)


def test_patience_is_at_least_one() -> None:
    Health(patience=1)
    with pytest.raises(ValueError, match="patience must be >= 1, found 0"):
        Health(patience=0)


@pytest.mark.parametrize("knob", ["lr", "weight_decay", "batch_size", "clip"])
def test_a_knob_that_makes_no_sense_below_zero_is_refused(knob: str) -> None:
    with pytest.raises(InputError, match=f"knobs.{knob}: its peak must be >= 0, found -1"):
        Stage(Images(), objective=Classification(), knobs={knob: Knob(-1.0)})
