"""Preparing: what a step costs, how a batch is cut, and measured steps that leave no trace but their charges."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from small_runs import EXAM, Poisoned, digits, language, plain_stage, with_objective

from outlay.errors import InputError
from outlay.meter import Meter
from outlay.planning.memory import memory
from outlay.testing import FakeClock
from outlay.train import Recipe
from outlay.train.assembly import Assembly, assemble
from outlay.train.preparing import Prepared, measure_steps, needed_memory, prepare, warm_up_compiler


def prepared(recipe: Recipe, **settings: Any) -> tuple[Assembly, Meter, list[Prepared]]:
    assembly, meter = assemble(recipe), Meter(recipe.budget, FakeClock())
    return assembly, meter, prepare(assembly, meter, settings)


def state(assembly: Assembly) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in assembly.plain_module.state_dict().items()}


def test_a_stage_is_measured_on_its_first_batch() -> None:
    assembly, meter, (known,) = prepared(digits())
    assert torch.equal(known.batch["inputs"], assembly.streams[0].draw(32)["inputs"])
    assert known.cost.flops_per_example == 3 * 2 * (64 * 32 + 32 * 10) - 2 * 64 * 32
    assert meter.accounts["plan"]["flops"] == 5 * known.cost.flops_per_example
    assert known.micro_batch == known.most == 32 and "32" in known.why


def test_every_stage_has_its_own() -> None:
    _, _, (first, second) = prepared(digits(stages=[plain_stage(), plain_stage(name="more", batch_size=7)]))
    assert (first.micro_batch, second.micro_batch) == (32, 7) and len(second.batch["labels"]) == 7


def test_the_recipes_pieces_and_those_of_an_earlier_process_stand() -> None:
    assert prepared(digits(micro_batch=5))[2][0].micro_batch == 5
    assert prepared(digits(micro_batch=99))[2][0].micro_batch == 32
    (known,) = prepared(digits(micro_batch=5), micro_batches=[11])[2]
    assert known.micro_batch == 11 and known.why == "as the run began"


def test_pieces_are_chosen_for_the_largest_batch_to_come() -> None:
    growing = {"batch_size": {"peak": 64, "schedule": {"linear": {"start": 0.125, "end": 1.0}}}}
    _, _, (known,) = prepared(digits(stages=[plain_stage(knobs=growing)]))
    assert len(known.batch["labels"]) == 8 and known.most == known.micro_batch == 64


def test_a_memory_ceiling_cuts_the_batch() -> None:
    assembly, _, (free,) = prepared(language())
    whole = needed_memory(assembly, 0, free)
    assert whole == memory(assembly.plain_module, assembly.recipe.stages[0].optimizer, free.cost, 8)
    tight, _, (held,) = prepared(language(budget=f"12 steps, {whole.total} bytes"))
    assert 1 <= held.micro_batch < 8
    assert needed_memory(tight, 0, held).total <= 0.9 * whole.total
    assert needed_memory(tight, 0, held) == memory(
        tight.plain_module, tight.recipe.stages[0].optimizer, held.cost, held.micro_batch, again=True
    )
    floor = whole.weights + whole.gradients + whole.optimizer
    with pytest.raises(InputError, match="even one example at a time needs .* and the ceiling is "):
        prepared(language(budget=f"12 steps, {floor} bytes"))


def test_a_last_evaluation_must_leave_something_to_train_on() -> None:
    prepared(digits(budget="65 examples", evaluate={"exams": [EXAM]}))
    with pytest.raises(InputError, match="may take 64 examples of a budget of 64 examples, so that nothing is left to train on"):
        prepared(digits(budget="64 examples", evaluate={"exams": [EXAM]}))
    forward = 2 * (64 * 32 + 32 * 10)
    measuring = 5 * (3 * forward - 2 * 64 * 32)
    prepared(digits(budget=f"{64 * forward + measuring + 1} flops", evaluate={"exams": [EXAM]}))
    with pytest.raises(InputError, match="the evaluation at the end may take "):
        prepared(digits(budget=f"{64 * forward + measuring} flops", evaluate={"exams": [EXAM]}))


def test_a_probe_must_leave_something_to_train_on() -> None:
    prepared(digits(budget="193 examples", probe_steps=5))
    with pytest.raises(InputError, match="the probe takes 192 examples of a budget of 192 examples, so that nothing is left to train on"):
        prepared(digits(budget="192 examples", probe_steps=5))
    with pytest.raises(InputError, match="the probe takes 80 examples"):
        prepared(digits(budget="80 examples", stages=[plain_stage(), plain_stage(name="more", batch_size=8)], probe_steps=1))


def test_every_process_needs_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = {"batch_size": {"peak": 64, "schedule": {"linear": {"start": 1 / 64, "end": 1.0}}}}
    recipe = digits(stages=[plain_stage(knobs=growing)])
    prepared(recipe)
    assembly = assemble(recipe)
    monkeypatch.setattr(assembly, "context", dataclasses.replace(assembly.context, world=2))
    with pytest.raises(InputError, match="stage 'train' takes 1 examples an update, and 2 processes need at least one each"):
        prepare(assembly, Meter(recipe.budget, FakeClock()), {})


def test_measured_steps_are_charged_and_leave_no_trace() -> None:
    rate = {"lr": 0.01}  # a schedule that begins at 0 would move nothing
    recipe = digits(budget="1h", stages=[plain_stage(knobs=rate), plain_stage(name="more", batch_size=8, knobs=rate)])
    assembly, meter, known = prepared(recipe)
    before, flops = state(assembly), known[0].cost.flops_per_example
    results = measure_steps(assembly, meter, known, 3)
    assert [result.steps for result in results] == [3, 3]
    # one step more than was measured warms up
    assert meter.accounts["probe"]["examples"] == 4 * (32 + 8) and meter.accounts["probe"]["flops"] == 4 * (32 + 8) * flops
    assert all(torch.equal(before[name], tensor) for name, tensor in state(assembly).items())
    assert [stream.state_dict()["cursor"] for stream in assembly.streams] == [0, 0]
    assert all(p.grad is None for p in assembly.plain_module.parameters())


def test_a_first_batch_that_breaks_is_refused_before_spending() -> None:
    assembly, meter, known = prepared(with_objective(digits(), Poisoned(), poison=1.0))
    with pytest.raises(InputError, match="the loss or gradient of the first batch is not finite"):
        measure_steps(assembly, meter, known, 1)


def test_warming_the_compiler_up_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling itself is torch's; what counts is that every stage's shapes are run, paid for, and put back."""
    assembly, meter, known = prepared(
        digits(stages=[plain_stage(knobs={"lr": 0.01}), plain_stage(name="more", batch_size=8, knobs={"lr": 0.01})])
    )
    seen: list[int] = []
    monkeypatch.setattr(type(assembly.plain_module), "compile", lambda module: seen.append(0))
    assembly.plain_module.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    before = state(assembly)
    warm_up_compiler(assembly, meter, known)
    assert seen == [0, 32, 8] and "compile" in meter.accounts
    assert all(torch.equal(before[name], tensor) for name, tensor in state(assembly).items())
