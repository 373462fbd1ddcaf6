"""Learning-rate-free optimizers through the loop: what is evaluated and exported, and going on after evaluations, kills and roll-backs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import EXAM, digits, lines, plain_stage, weights

import outlay
from outlay.evaluations import HeldOutLoss
from outlay.knob import Knob
from outlay.objectives import Classification
from outlay.optim import Prodigy
from outlay.optim.base import settle
from outlay.train.assembly import assemble, open_stage
from outlay.train.checkpoint import checkpoints, load_checkpoint, optimizer_from_plain, optimizer_to_plain
from outlay.train.snapshots import restore, snapshot
from outlay.train.update import set_knobs, update

pytest.importorskip("pytorch_optimizer")


def recipe(optimizer: Any, **changes: Any) -> Any:
    stage = plain_stage(optimizer=optimizer, knobs={"clip": 1.0})
    return digits(**{"budget": "20 steps", "stages": [stage], "checkpoints": {"every_steps": 5, "keep": 9}, **changes})


def opened_at_the_end(folder: Path) -> Any:
    """The last checkpoint's run: what was trained, before its stage was closed."""
    made = assemble(recipe("schedule_free"))
    stage_run = open_stage(made, 0, {}, 32)
    restore(made, stage_run, load_checkpoint(checkpoints(folder / "checkpoints")[-1]))
    return made, stage_run


def test_the_exported_weights_are_the_averages(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    outlay.run(recipe("schedule_free", evaluate={"exams": [EXAM]}), tmp_path / "run")
    made, stage_run = opened_at_the_end(tmp_path / "run")
    trained = {name: p.detach().clone() for name, p in made.parameters()}
    settle(stage_run.stage.optimizer, stage_run.optimizer)
    exported = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(exported[name], p) for name, p in made.parameters())
    assert not any(torch.equal(exported[name], trained[name]) for name in trained)
    # and the last evaluation is theirs
    sitting = HeldOutLoss(Classification(), examples=64).open(made.context, stage_run.stage.source)
    with torch.no_grad():
        measured = sitting.run(made.plain_module.eval(), lambda batch, new: None)
    assert lines(tmp_path / "run", "evaluation")[-1]["metrics"] == measured


def test_evaluations_on_the_way_are_of_the_averages_and_change_nothing(tmp_path: Path) -> None:
    exams = {"exams": [EXAM], "every": 0.25}
    outlay.run(recipe("schedule_free", evaluate=exams), tmp_path / "seen")
    outlay.run(recipe("schedule_free"), tmp_path / "unseen")
    assert weights(tmp_path / "seen") == weights(tmp_path / "unseen")
    # the evaluation at half the budget is that of a run that ends there
    outlay.run(recipe("schedule_free", budget="10 steps", evaluate={"exams": [EXAM]}), tmp_path / "half")
    middle = next(line for line in lines(tmp_path / "seen", "evaluation") if line["step"] == 10 and line["when"] == "during")
    assert middle["metrics"] == lines(tmp_path / "half", "evaluation")[-1]["metrics"]


def test_the_next_stage_begins_with_the_averages(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    one = plain_stage(optimizer="schedule_free", knobs={}, name="first")
    two = plain_stage(optimizer="sgd", knobs={"lr": 0.0}, name="second")
    outlay.run(recipe("schedule_free", stages=[one, two], budget="12 steps"), tmp_path / "both")
    first = load_checkpoint(next(path for path in checkpoints(tmp_path / "both" / "checkpoints") if path.name == "step-00000006"))
    exported = load_file(tmp_path / "both" / "model" / "model.safetensors")
    assert first.plain["stage"] == 1
    assert all(torch.equal(exported[name], first.tensors["model"][name]) for name in exported)


@pytest.mark.parametrize("name", ["prodigy", "d_adaptation", "schedule_free"])
def test_a_run_taken_up_from_a_checkpoint_ends_with_the_same_weights(name: str) -> None:
    """What a checkpoint holds is enough, tensors of parameter groups included."""

    def steps(made: Any, stage_run: Any, first: int, last: int) -> None:
        for step in range(first, last):
            batch = stage_run.stream.draw(32)
            update(made, stage_run, batch, set_knobs(made, stage_run, 0.0), step)
            stage_run.stream.advance(32)

    made = assemble(recipe({name: {"first": 1e-3}} if name != "schedule_free" else name))
    whole = open_stage(made, 0, {}, 32)
    empty = snapshot(made, whole)
    steps(made, whole, 1, 5)
    saved = snapshot(made, whole)
    steps(made, whole, 5, 9)
    expected = [p.detach().clone() for _, p in made.parameters()]
    for start, first in ((saved, 5), (empty, 1)):
        for other in (open_stage(made, 0, {}, 32), whole):  # a fresh optimizer, and one that had gone on
            restore(made, other, start)
            steps(made, other, first, 9)
            assert all(torch.equal(a, p) for a, (_, p) in zip(expected, made.parameters(), strict=True))


def test_tensors_of_groups_are_stored_beside_those_of_parameters() -> None:
    w = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Prodigy(first=0.1).build([("w", w)])
    for _ in range(3):
        w.grad = torch.full_like(w, 0.5)
        optimizer.step()
    tensors, groups = optimizer_to_plain(optimizer)
    assert float(tensors["group/0/d_numerator"]) == float(optimizer.param_groups[0]["d_numerator"]) != 0.0
    assert "d_numerator" not in groups[0] and groups[0]["d"] == optimizer.param_groups[0]["d"]
    twin = Prodigy(first=0.1).build([("w", torch.nn.Parameter(w.detach().clone()))])
    optimizer_from_plain(twin, tensors, groups)
    assert torch.equal(twin.param_groups[0]["d_numerator"], optimizer.param_groups[0]["d_numerator"])


@pytest.mark.parametrize("name", ["prodigy", "d_adaptation"])
def test_without_a_learning_rate_of_ones_own_the_digits_are_learned(name: str, tmp_path: Path) -> None:
    made = recipe(name, budget="300 steps", evaluate={"exams": [EXAM]}, checkpoints={})
    assert made.stages[0].knobs["clip"] == Knob(1.0) and "lr" not in made.stages[0].knobs
    result = outlay.run(made, tmp_path / "run")
    assert result.metrics["held_out/accuracy"] > 0.8
