"""Reading recipes: YAML and Python say the same, every problem is told with its line, and overrides go where they point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_runs import plain_digits, plain_stage

from outlay.budget import Budget
from outlay.errors import InputError
from outlay.evaluations import HeldOutLoss
from outlay.knob import Knob
from outlay.models.mlp import Mlp
from outlay.objectives import Classification
from outlay.optim import AdamW, Sgd
from outlay.schedules import Cosine, Rex, Warmup
from outlay.sources.images import Images
from outlay.train import Checkpoints, Evaluate, Health, Recipe, Stage, dump_recipe, load_recipe
from outlay.train.reading import bundled, find_recipe

YAML = """\
name: twice
budget: 3k steps or 2m, 4GiB
seed: 7
model:
  mlp: {inputs: 64, classes: 10, hidden: [16, 8]}
stages:
  - name: first
    source: images
    objective: classification
    optimizer: {sgd: {nesterov: true}}
    share: 3
    knobs:
      lr: {peak: 1e-1, schedule: {warmup: {fraction: 0.1, then: rex}}}
      momentum: 0.8
  - name: second
    source: {images: {name: digits}}
    objective: classification
    batch_size: 16
    knobs: {lr: {schedule: cosine, peak: 1.5e-3}, clip: 1}
evaluate:
  exams: [{held_out_loss: {objective: classification}}]
  every: 0.5
checkpoints: {every_steps: 20, keep: 3}
health: {nonfinite: roll_back, patience: 2}
precision: fp32
"""

PYTHON = Recipe(
    budget=Budget({"steps": 3000.0, "seconds": 120.0}, {"memory": 4.0 * 2**30}),
    model=Mlp(inputs=64, classes=10, hidden=(16, 8)),
    stages=(
        Stage(
            Images(),
            name="first",
            share=3.0,
            objective=Classification(),
            optimizer=Sgd(nesterov=True),
            knobs={"lr": Knob(0.1, Warmup(fraction=0.1, then=Rex())), "momentum": Knob(0.8)},
        ),
        Stage(
            Images("digits"),
            name="second",
            objective=Classification(),
            optimizer=AdamW(),
            batch_size=16,
            knobs={"lr": Knob(1.5e-3, Cosine()), "clip": Knob(1.0)},
        ),
    ),
    name="twice",
    seed=7,
    evaluate=Evaluate((HeldOutLoss(objective=Classification()),), every=0.5),
    checkpoints=Checkpoints(every_steps=20, keep=3),
    health=Health("roll_back", 2),
    precision="fp32",
)


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def told(error: pytest.ExceptionInfo[InputError]) -> dict[str, tuple[int | None, str]]:
    return {problem.where: (problem.line, problem.message) for problem in error.value.problems}


# ---- the same recipe ----------------------------------------------------------------------------------------------------------------


def test_yaml_and_python_say_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, YAML)
    assert load_recipe(path) == PYTHON
    assert load_recipe(str(path)) == PYTHON
    assert load_recipe(yaml.safe_load(YAML.replace("1e-1", "0.1").replace("1.5e-3", "0.0015"))) == PYTHON


def test_what_is_dumped_loads_equal(tmp_path: Path, digits_recipe: Recipe, language_recipe: Recipe) -> None:
    for recipe in (PYTHON, digits_recipe, language_recipe):
        assert load_recipe(written(tmp_path, dump_recipe(recipe))) == recipe


@pytest.mark.parametrize("name", sorted(bundled()))
def test_bundled_recipes_survive_the_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    again = load_recipe(written(tmp_path, dump_recipe(recipe)))
    assert again == recipe
    assert dump_recipe(again) == dump_recipe(recipe)
    assert again.budget.limits and recipe.name == name


@given(
    peak=st.floats(1e-12, 1e6),
    seed=st.integers(0, 2**40),
    steps=st.integers(1, 10**9),
    hidden=st.lists(st.integers(1, 512), max_size=3),
    fraction=st.floats(0.0, 1.0, exclude_max=True, allow_subnormal=False),
)
def test_numbers_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, peak: float, seed: int, steps: int, hidden: list[int], fraction: float
) -> None:
    stage = plain_stage(knobs={"lr": {"peak": peak, "schedule": {"warmup": {"fraction": fraction, "then": "rex"}}}})
    model = {"mlp": {"inputs": 64, "classes": 10, "hidden": hidden}}
    recipe = load_recipe(plain_digits(seed=seed, budget=f"{steps} steps", model=model, stages=[stage]))
    assert load_recipe(written(tmp_path_factory.getbasetemp(), dump_recipe(recipe))) == recipe


def test_reading_leaves_the_callers_values_alone() -> None:
    plain = plain_digits()
    load_recipe(plain, ["stages[0].knobs.lr.peak=0.5", "evaluate.every=0.5"], "7 steps")
    assert plain == plain_digits()


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("2E4", 2e4), ("1.e-2", 1e-2), ("-0", 0.0), ("3_0e1", 300.0), ("0.125", 0.125)]
)
def test_numbers_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    recipe = load_recipe(written(tmp_path, YAML.replace("peak: 1e-1", f"peak: {text}")))
    assert recipe.stages[0].knobs["lr"].peak == value


def test_a_text_that_only_begins_like_a_number_stays_one(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, YAML.replace("name: twice", "name: 1e-3b"))).name == "1e-3b"


# ---- what is wrong, all of it -------------------------------------------------------------------------------------------------------


def test_every_problem_is_told_with_its_path_and_line(tmp_path: Path) -> None:
    text = (
        YAML.replace("seed: 7", "sead: 7")
        .replace("inputs: 64", "inptus: 64")
        .replace("then: rex", "then: rexx")
        .replace("optimizer: {sgd", "optimizer: {sgdd")
        .replace("precision: fp32", "precision: fp23")
        .replace("batch_size: 16", "batch_size: many")
        .replace("budget: 3k steps", "budget: 3k stepps")
    )
    path = written(tmp_path, text)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    found = told(error)
    expected = {
        "sead": (3, "did you mean 'seed'"),
        "budget": (2, "cannot read '3k stepps'"),
        "model.mlp.inptus": (5, "did you mean 'inputs'"),
        "model.mlp": (5, "the field 'inputs' is missing"),
        "stages[0].optimizer": (10, "did you mean 'optim/sgd'"),
        "stages[0].knobs.lr.schedule.warmup.then": (13, "did you mean 'schedules/rex'"),
        "stages[1].batch_size": (18, "expected a whole number, found 'many'"),
        "precision": (25, "did you mean 'fp32'"),
    }
    assert set(found) == set(expected)
    for where, (line, message) in expected.items():
        assert found[where][0] == line, where
        assert message in found[where][1], where
    assert str(error.value).startswith(f"{path}: 8 problems") and "sead (line 3): " in str(error.value)


def test_problems_inside_a_stage_keep_their_place(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(written(tmp_path, YAML.replace("clip: 1", "clipp: 1").replace("share: 3", "share: 0")))
    found = told(error)
    assert set(found) == {"stages[0].share", "stages[1].knobs.clipp"}
    assert found["stages[0].share"][0] == 11 and found["stages[1].knobs.clipp"][0] == 19
    assert "did you mean 'clip'" in found["stages[1].knobs.clipp"][1]


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the key 'seed' is written twice \(line 4\)"):
        load_recipe(written(tmp_path, YAML.replace("seed: 7", "seed: 7\nseed: 8")))
    with pytest.raises(InputError, match=r"the key 'momentum' is written twice \(line 15\)"):
        load_recipe(written(tmp_path, YAML.replace("momentum: 0.8", "momentum: 0.8\n      momentum: 0.9")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a recipe is a mapping with budget, model and stages, found NoneType"),
        ("- a\n- b\n", "found list"),
        ("name: [", "cannot be read as YAML"),
        ("a: 1\n---\nb: 2\n", "cannot be read as YAML"),
        ("? [a, b]\n: 1\n", "cannot be read as YAML"),
        ("a: &x [*x]\n", "cannot be read as YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "cannot be read as YAML"),
    ],
)
def test_what_is_no_recipe_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(path) in str(error.value) and message in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(InputError, match="cannot be read as YAML"):
        load_recipe(path)


def test_a_name_that_is_nowhere_gets_the_nearest(tmp_path: Path) -> None:
    assert find_recipe("quickstart") == bundled()["quickstart"]
    with pytest.raises(InputError, match=r"no recipe file 'quickstrat'.*did you mean 'quickstart'"):
        load_recipe("quickstrat")
    with pytest.raises(InputError, match="no recipe file"):
        load_recipe(tmp_path)


# ---- overrides ----------------------------------------------------------------------------------------------------------------------


def overridden(*texts: str, **changes: Any) -> Recipe:
    return load_recipe(plain_digits(**changes), list(texts))


def test_overrides_go_where_they_point() -> None:
    assert overridden("seed=5").seed == 5
    assert overridden("stages[0].knobs.lr.peak=1e-2").stages[0].knobs["lr"].peak == 0.01
    assert overridden("stages[0].knobs.lr=0.5").stages[0].knobs["lr"] == Knob(0.5)
    assert overridden("stages[0].optimizer={sgd: {nesterov: true}}").stages[0].optimizer == Sgd(nesterov=True)
    assert overridden("model.mlp.hidden[0]=17").model == Mlp(64, 10, (17,), 0.1)
    assert overridden("evaluate.every=0.25").evaluate == Evaluate(every=0.25)  # not written in the recipe
    assert overridden("name=a=b").name == "a=b"
    assert overridden("seed=5", "seed=6").seed == 6
    assert overridden("threads=null").threads is None
    two = overridden("stages[1].share=2", stages=[plain_stage(), plain_stage(name="more")])
    assert [stage.share for stage in two.stages] == [1.0, 2.0]


def test_a_budget_replaces_the_recipes() -> None:
    assert load_recipe(plain_digits(), (), "3m").budget == Budget({"seconds": 180.0})
    assert load_recipe(plain_digits(budget="nonsense"), (), "3m").budget == Budget({"seconds": 180.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead=3", "unknown field 'sead'; did you mean 'seed'"),
        ("modle.mlp.inputs=3", "unknown field 'modle'; did you mean 'model'"),
        ("stages[0].knobs.lr.peek=0.1", "unknown field 'peek'; did you mean 'peak'"),
        ("stages[3].share=2", "the recipe has nothing at 3 to set into"),
        ("stages[3]=2", "there is no place 3"),
        ("stages.share=2", "there is no place 'share'"),
        ("name.deep=2", "the recipe has nothing at 'name' to set into"),
        ("seed=[1", "the value is not YAML"),
        ("seed", "--set takes key=value"),
        ("=3", "--set takes key=value"),
        ("seed=three", "expected a whole number, found 'three'"),
        ("seed=1.5", "expected a whole number, found 1.5"),
    ],
)
def test_overrides_that_lead_nowhere_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        overridden(text)
    assert message in str(error.value)


def test_wrong_overrides_are_told_together() -> None:
    with pytest.raises(InputError) as error:
        overridden("seed=[", "stages[9].share=1", "sead=1")
    assert len(error.value.problems) == 3
