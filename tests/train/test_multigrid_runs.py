"""Multigrid through the loop: the shapes that were trained, at a constant cost, until the budget is spent."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from small_runs import EXAM, audit, digits, language, lines, plain_stage, weights

import outlay
from outlay.knob import Knob
from outlay.schedules import Cosine
from outlay.train import Recipe
from outlay.train.multigrid import multigrid_images, multigrid_text

STEPS = (0.8,)


def images(budget: str, knobs: dict[str, Any]) -> Recipe:
    source = {"images": {"name": "digits", "channels": True}}
    recipe = digits(
        budget=budget, model={"cnn": {"widths": [8]}}, stages=[plain_stage(source=source, optimizer="sgd", knobs={})],
        evaluate={"exams": [EXAM], "start": False},
    )  # fmt: skip
    return dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], knobs=knobs),))


def text(budget: str, knobs: dict[str, Any]) -> Recipe:
    recipe = language(budget=budget)
    return dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], knobs=knobs),))


def seen(folder: Path, *names: str) -> list[tuple[float, ...]]:
    return [tuple(round(line["knobs"][name], 6) for name in names) for line in lines(folder, "step")]


def runs(values: list[Any]) -> list[Any]:
    """The values without repetitions in a row."""
    return [value for i, value in enumerate(values) if i == 0 or value != values[i - 1]]


def test_images_in_examples(tmp_path: Path) -> None:
    """4 images of 8x8 an update, so 32 of 3x3, 16 of 4x4, 8 of 6x6 and 4 of 8x8."""
    knobs = multigrid_images(4, 8, 0.05, steps=STEPS, clock="examples")
    result = outlay.run(images("2000 examples", knobs), tmp_path / "run")
    assert result.ended_by == "examples" and audit(tmp_path / "run") == []
    shapes = [(round(batch), round(side)) for batch, side in seen(tmp_path / "run", "batch_size", "resolution")]
    assert runs(shapes) == [(32, 3), (16, 4), (8, 6), (4, 8)]
    assert [line["charged"]["train"]["examples"] for line in lines(tmp_path / "run", "step")] == [batch for batch, _ in shapes]
    # the shares of the construction, counted in examples: 8, 4, 2, 1 parts of the cycle and a fine-tuning phase of 0.25
    spent = {shape: sum(batch for batch, side in shapes if side == shape) for shape in (3, 4, 6, 8)}
    total = sum(spent.values())
    parts = {3: 0.8 * 8, 4: 0.8 * 4, 6: 0.8 * 2, 8: 0.8 * 1 + 0.2 * 4}
    assert spent == pytest.approx({side: total * part / sum(parts.values()) for side, part in parts.items()}, abs=40)
    # the learning rate follows the batch
    rates = runs(seen(tmp_path / "run", "lr"))
    assert rates == [(0.4,), (0.2,), (0.1,), (0.05,), (0.005,)]


def test_images_in_flops_with_a_short_cycle(tmp_path: Path) -> None:
    knobs = multigrid_images(4, 8, 0.05, profile=Cosine(), steps=STEPS, short=True)
    result = outlay.run(images("2e7 flops", knobs), tmp_path / "run")
    assert result.ended_by == "flops" and audit(tmp_path / "run") == []
    steps = lines(tmp_path / "run", "step")
    shapes = [(round(batch), round(side)) for batch, side in seen(tmp_path / "run", "batch_size", "resolution")]
    # the last phase: sizes 4, 6 and 8 in turn, wherever in the cycle it begins
    late = [shape for shape, line in zip(shapes, steps, strict=True) if line["progress"] > 0.85]
    assert set(late) == {(16, 4), (8, 6), (4, 8)}
    assert all(one != other for one, other in pairwise(late)) and late[:3] == late[3:6]
    # the first: the long cycle's size is below the short cycle's, and stays
    assert set(shapes[:3]) == {(32, 3)}
    for line in steps:
        base = 4 * line["knobs"]["lr"] / (0.05 * Cosine().value(line["progress"]))
        assert round(base) in (32, 16, 8, 4)
    last = 3 * 2 * 8 * 10
    costs = [line["charged"]["train"]["flops"] - last * batch for line, (batch, _) in zip(steps, shapes, strict=True)]
    assert max(costs) <= 1.26 * min(costs)  # 3x3 and 6x6 stand for 2.83 and 5.66


@pytest.mark.parametrize("unit", ["tokens", "flops", "examples"])
def test_text(unit: str, tmp_path: Path) -> None:
    """8 rows of 32 tokens an update: 64 of 4, 32 of 8, 16 of 16, 8 of 32."""
    budget = {"tokens": "5k tokens", "flops": "1.2e9 flops", "examples": "170 examples"}[unit]
    result = outlay.run(text(budget, multigrid_text(8, 32, 0.001, steps=STEPS)), tmp_path / "run")
    assert result.ended_by == unit and audit(tmp_path / "run") == []
    assert runs(seen(tmp_path / "run", "length")) == [(4,), (8,), (16,), (32,)]
    charges = [line["charged"]["train"] for line in lines(tmp_path / "run", "step")]
    assert {(charge["examples"], charge["tokens"]) for charge in charges} == {(8, 256)}
    assert [rate for (rate,) in runs(seen(tmp_path / "run", "lr"))] == [0.008, 0.004, 0.002, 0.001, 0.0001]


def test_text_with_a_short_cycle_resumes_bit_by_bit(tmp_path: Path) -> None:
    knobs = multigrid_text(8, 32, 0.001, steps=(0.5,), short=True)
    recipe = dataclasses.replace(text("12 steps", knobs), checkpoints=outlay.train.Checkpoints(every_steps=4, keep=9))
    outlay.run(recipe, tmp_path / "run")
    assert [length for (length,) in seen(tmp_path / "run", "length")][6:] == [8, 16, 32, 8, 16, 32]
    # knobs are copied, so that the recipe's own controllers are as they were
    outlay.run(recipe, tmp_path / "again")
    assert weights(tmp_path / "run") == weights(tmp_path / "again")


def test_each_knob_from_a_recipes_text(tmp_path: Path) -> None:
    long = {"factors": [[1, 0.5], [1, 1]], "steps": [0.5]}
    knobs = {
        "batch_size": {"peak": 8, "schedule": {"long_cycle": {**long, "reads": "batch"}}},
        "resolution": {"peak": 8, "schedule": {"long_cycle": {**long, "reads": "space"}}},
        "lr": {"peak": 0.05, "schedule": {"linear_scaling": {"batch": {"long_cycle": {**long, "reads": "batch"}}, "profile": "linear"}}},
    }
    source = {"images": {"name": "digits", "channels": True}}
    recipe = digits(budget="8 steps", model={"cnn": {"widths": [4]}}, stages=[plain_stage(source=source, knobs=knobs)])
    outlay.run(recipe, tmp_path / "run")
    assert seen(tmp_path / "run", "batch_size", "resolution") == [(32, 4)] * 2 + [(8, 8)] * 6
    assert [rate for (rate,) in seen(tmp_path / "run", "lr")] == pytest.approx(
        [0.2, 0.175, 0.0375, 0.03125, 0.025, 0.01875, 0.0125, 0.00625]
    )


def test_the_knobs_of_both() -> None:
    knobs = multigrid_text(16, 64, 0.01)
    assert set(knobs) == {"batch_size", "length", "lr"} and knobs["batch_size"] == Knob(16)
    assert set(multigrid_images(16, 28, 0.01)) == {"batch_size", "resolution", "lr"}
    # 28 pixels a side: 10, 14, 20 and 28 with 8, 4, 2 and 1 times the batch cost the same up to rounding
    images = multigrid_images(1, 28, 0.01, steps=STEPS)
    shapes = [(images["batch_size"].value(p), round(images["resolution"].value(p))) for p in (0.1, 0.3, 0.5, 0.7)]
    assert shapes == [(8, 10), (4, 14), (2, 20), (1, 28)]
    assert [batch * side**2 for batch, side in shapes] == pytest.approx([784] * 4, rel=0.03)
