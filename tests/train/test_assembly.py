"""Assembly: ceilings are held before anything is spent, and a snapshot puts back all that training changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from small_runs import EXAM, digits, language, plain_stage
from torch import nn

from outlay.budget import Budget
from outlay.errors import InputError
from outlay.meter import Meter
from outlay.record import Record
from outlay.sources.base import count_units
from outlay.testing import FakeClock
from outlay.train import Recipe
from outlay.train.assembly import (
    Assembly,
    StageRun,
    assemble,
    count_parameters,
    evaluate,
    evaluation_bound,
    forward_flops_per_position,
    observe,
    open_stage,
    positions,
    versions,
)
from outlay.train.snapshots import restore, restore_weights, snapshot
from outlay.train.update import set_knobs, update

PLATEAU = {"peak": 0.05, "schedule": {"plateau": {"patience": 0, "threshold": 0.2, "factor": 0.5}}}


class Normed(nn.Module):
    """Batch norm keeps running statistics in buffers, and the output layer's weight is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.wide, self.again, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.again.weight = self.wide.weight
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.again(torch.relu(self.wide(self.norm(inputs.flatten(1)))))))


def normed() -> Recipe:
    torch.manual_seed(0)
    return dataclasses.replace(digits(stages=[plain_stage(knobs={"lr": PLATEAU})]), model=Normed())  # type: ignore[arg-type]


def walk(assembly: Assembly, stage_run: StageRun, steps: int) -> None:
    for step in range(steps):
        batch = stage_run.stream.draw(16)
        outcome = update(assembly, stage_run, batch, set_knobs(assembly, stage_run, 0.5), step + 1)
        stage_run.stream.advance(16)
        observe(stage_run, Record("step", step + 1, "train", 0.5, loss=outcome.loss))


def state(assembly: Assembly) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in assembly.plain_module.state_dict().items()}


# ---- ceilings -----------------------------------------------------------------------------------------------------------------------


def test_a_model_over_the_ceilings_is_refused() -> None:
    count = 64 * 32 + 32 + 32 * 10 + 10
    assemble(digits(budget=f"60 steps, {count} params"))
    with pytest.raises(InputError, match=f"the model has {count:,} parameters and the budget's ceiling is {count - 1:,}"):
        assemble(digits(budget=f"60 steps, {count - 1} params"))
    # weights, gradients and the two moments of AdamW with a step count a tensor
    floor = 4 * count * 4 + 4 * 4
    assemble(digits(budget=f"60 steps, {floor} bytes"))
    with pytest.raises(InputError, match="even one example cannot fit: weights .*, gradients .*, optimizer state "):
        assemble(digits(budget=f"60 steps, {floor - 1} bytes"))
    # SGD keeps one
    assemble(digits(budget=f"60 steps, {3 * count * 4} bytes", stages=[plain_stage(optimizer="sgd", knobs={})]))


def test_a_model_with_nothing_to_train_is_refused() -> None:
    frozen = nn.Linear(64, 10).requires_grad_(False)
    with pytest.raises(InputError, match="no parameter of the model requires a gradient"):
        assemble(dataclasses.replace(digits(), model=frozen))  # type: ignore[arg-type]


def test_parameters_are_counted_once() -> None:
    module = Normed()
    module.norm.weight.requires_grad_(False)
    total = 64 * 2 + 64 * 64 + 64 + 64 + 64 * 10 + 10
    assert count_parameters(module) == (total, total - 64)


# ---- snapshots ----------------------------------------------------------------------------------------------------------------------


def test_a_snapshot_puts_back_all_that_training_changes() -> None:
    assembly = assemble(normed())
    stage_run = open_stage(assembly, 0, {"steps": 3.0}, 8)
    walk(assembly, stage_run, 4)
    stage_run.losses, stage_run.next_evaluation, stage_run.first_step, stage_run.rolled_back = [0.5, 0.25], 0.75, 3, 1
    saved = snapshot(assembly, stage_run)
    before = state(assembly)
    assert saved.tensors["model"].keys() == before.keys() - {"again.weight"}  # shared weights once
    rate = stage_run.knobs["lr"].value(0.5)
    assert rate < 0.05  # the controller has acted
    walk(assembly, stage_run, 3)
    on = state(assembly)
    assert not torch.equal(on["norm.running_mean"], before["norm.running_mean"])
    assert all(torch.equal(saved.tensors["model"][name], before[name]) for name in saved.tensors["model"])  # a copy, not a view
    restore(assembly, stage_run, saved)
    assert all(torch.equal(before[name], tensor) for name, tensor in state(assembly).items())
    assert stage_run.knobs["lr"].value(0.5) == rate and stage_run.stream.state_dict()["cursor"] == 64
    assert (stage_run.starts, stage_run.losses, stage_run.next_evaluation) == ({"steps": 3.0}, [0.5, 0.25], 0.75)
    walk(assembly, stage_run, 3)
    assert all(torch.equal(on[name], tensor) for name, tensor in state(assembly).items())
    # a process that begins anew goes on alike
    other = assemble(normed())
    fresh = open_stage(other, 0, {}, 8)
    restore(other, fresh, saved)
    assert (fresh.first_step, fresh.rolled_back, fresh.starts) == (3, 1, {"steps": 3.0})
    walk(other, fresh, 3)
    assert all(torch.equal(on[name], tensor) for name, tensor in state(other).items())


def test_weights_of_another_model_are_refused() -> None:
    assembly = assemble(digits())
    saved = snapshot(assembly, open_stage(assembly, 0, {}, 8))
    with pytest.raises(InputError, match="the saved weights are of another model: they differ in "):
        restore_weights(assemble(digits(model={"mlp": {"inputs": 64, "classes": 10, "hidden": [32, 32]}})), saved)


def test_frozen_weights_are_not_saved() -> None:
    recipe = normed()
    recipe.model.wide.requires_grad_(False)  # type: ignore[attr-defined]
    assembly = assemble(recipe)
    saved = snapshot(assembly, open_stage(assembly, 0, {}, 8))
    assert "wide.weight" not in saved.tensors["model"] and "out.weight" in saved.tensors["model"]


# ---- costs and evaluation -----------------------------------------------------------------------------------------------------------


def test_a_shape_is_measured_and_charged_once() -> None:
    assembly, meter = assemble(digits()), Meter(Budget.parse("1h"), FakeClock())
    batch = assembly.first_batch(0)
    cost = assembly.cost_of(0, batch, meter)
    # a product of n x k and k x m takes 2 n k m; backward twice that, but the inputs need no gradient
    forward = 2 * (64 * 32 + 32 * 10)
    assert cost.forward_flops_per_example == forward
    assert cost.flops_per_example == 3 * forward - 2 * 64 * 32
    charged = meter.spent("flops")
    assert charged == 5 * cost.flops_per_example and set(meter.accounts) <= {"plan", "idle"}
    assert assembly.cost_of(0, assembly.streams[0].draw(7), meter) == cost  # another number of examples is the same shape
    assert meter.spent("flops") == charged


def test_the_first_batch_is_as_large_as_the_knob_says_and_moves_no_cursor() -> None:
    assembly = assemble(
        digits(stages=[plain_stage(knobs={"batch_size": {"peak": 48, "schedule": {"linear": {"start": 0.5, "end": 1.0}}}})])
    )
    assert len(assembly.first_batch(0)["labels"]) == 24
    assert assembly.streams[0].state_dict()["cursor"] == 0
    assert assembly.largest_batch(0) == 48
    assert len(assemble(digits()).first_batch(0)["labels"]) == assemble(digits()).largest_batch(0) == 32


@pytest.mark.parametrize("make", [lambda: digits(evaluate={"exams": [EXAM]}), lambda: language(evaluate={"exams": ["held_out_loss"]})])
def test_an_evaluation_charges_what_was_foretold(make: Any) -> None:
    recipe = make()
    assembly, meter = assemble(recipe), Meter(Budget.parse("1h"), FakeClock())
    batch = assembly.first_batch(0)
    per_position = forward_flops_per_position(assembly.cost_of(0, batch, meter), batch)
    bound = evaluation_bound(assembly, per_position)
    before = state(assembly)
    metrics = evaluate(assembly, meter, per_position, count_units)
    assert {unit: meter.accounts["eval"].get(unit) for unit in bound} == pytest.approx(bound)
    assert all(torch.equal(before[name], tensor) for name, tensor in state(assembly).items())
    assert assembly.plain_module.training and metrics == evaluate(assembly, meter, per_position, count_units)


def test_an_evaluation_is_without_dropout_and_gradients() -> None:
    """Held-out loss is that of the module in evaluation mode; an exam that fails leaves the module training."""
    assembly, meter = assemble(digits(evaluate={"exams": [EXAM]})), Meter(Budget.parse("1h"), FakeClock())
    assembly.sittings.append(_Failing())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="mode is False and gradients are False"):
        evaluate(assembly, meter, 0.0, count_units)
    assert assembly.plain_module.training


class _Failing:
    def run(self, model: nn.Module, charge: Any) -> dict[str, float]:
        raise RuntimeError(f"mode is {model.training} and gradients are {torch.is_grad_enabled()}")


def test_positions_count_padding_and_examples_without_text() -> None:
    assert positions({"input_ids": torch.zeros(3, 5), "labels": torch.zeros(3, 5)}) == 15.0
    assert positions({"inputs": torch.zeros(3, 8, 8), "labels": torch.zeros(3)}) == 3.0


# ---- the rest -----------------------------------------------------------------------------------------------------------------------


def test_one_process_agrees_with_itself() -> None:
    assembly = assemble(digits())
    assert assembly.agree([0.5, 1.0]) == [0.5, 1.0]
    assert assembly.add_up({"tokens": 3.0}) == {"tokens": 3.0}


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp32"])
def test_runs_of_different_precision_may_follow_one_another(wanted: str) -> None:
    assembly = assemble(digits(precision=wanted))
    seen: list[torch.dtype] = []
    assembly.plain_module[1].register_forward_hook(lambda module, given, out: seen.append(out.dtype))  # type: ignore[index]
    with assembly.accelerator.autocast():
        assembly.module(assembly.first_batch(0)["inputs"].to(assembly.context.device))
    assert assembly.precision == wanted and seen == [torch.bfloat16 if wanted == "bf16" else torch.float32]


def test_threads_are_the_recipes_unless_a_run_goes_on() -> None:
    before = torch.get_num_threads()
    try:
        assemble(digits(threads=2))
        assert torch.get_num_threads() == 2
        assemble(digits(threads=2), threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_versions_name_what_numbers_depend_on() -> None:
    found = versions()
    assert found["torch"] == torch.__version__ and "python" in found and all(found.values())
