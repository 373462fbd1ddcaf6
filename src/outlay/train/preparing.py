"""Preparing a stage: its first batch, the pieces it is cut into, the plan, the compiler, and a measured probe."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from outlay.budget import Budget
from outlay.meter import Meter
from outlay.planning.cost import Cost
from outlay.planning.devices import sustained_flops
from outlay.planning.memory import available_memory, choose_micro_batch, memory
from outlay.planning.plan import Plan, StepCost, make_plan
from outlay.planning.probe import ProbeResult, probe
from outlay.sources.base import Batch, count_units
from outlay.train.assembly import Assembly, StageRun, count_parameters, restore, snapshot
from outlay.train.pace import Reserve, flow_limits
from outlay.train.recipe import Recipe
from outlay.train.update import set_knobs, update


@dataclass(frozen=True)
class Choice:
    """How a batch is cut, and why."""

    micro_batch: int
    why: str


def first_batch(stage_run: StageRun) -> Batch:
    """Return this process's part of the stage's first batch; the cursor stays."""
    knobs = {name: knob.value(0.0) for name, knob in stage_run.knobs.items()}
    return stage_run.stream.draw(max(1, round(knobs.get("batch_size", stage_run.stage.batch_size))))


def choose_pieces(assembly: Assembly, stage_run: StageRun, batch: Batch, cost: Cost) -> Choice:
    """Return the micro-batch: as the recipe says, or the largest that fits the memory ceiling or the device.

    Raises:
        InputError: when not even one example fits.
    """
    recipe, examples = assembly.recipe, len(next(iter(batch.values())))
    if recipe.micro_batch is not None:
        return Choice(min(recipe.micro_batch, examples), "the recipe says so")
    ceiling = recipe.budget.ceilings.get("memory") or available_memory(assembly.context.device)
    size, why = choose_micro_batch(assembly.plain_module, stage_run.stage.optimizer, cost, examples, int(ceiling), assembly.precision)
    return Choice(size, why)
