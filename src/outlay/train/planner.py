"""Planner: what a recipe's budget buys, said before it is spent."""

from __future__ import annotations

import time
from collections.abc import Sequence

from outlay.meter import Meter
from outlay.planning.devices import expected_step_seconds
from outlay.planning.memory import Memory, memory
from outlay.planning.plan import FORMULA_FACTOR, Plan, StepCost, make_plan
from outlay.planning.probe import ProbeResult
from outlay.sources.base import count_units
from outlay.train.assembly import Assembly, assemble, count_parameters, evaluation_bound, forward_flops_per_position
from outlay.train.pace import Reserve, flow_limits
from outlay.train.preparing import Prepared, measure_steps, prepare
from outlay.train.recipe import Recipe

#: steps that ``plan --probe`` times when the recipe does not say
PROBE_STEPS = 5


def plan(recipe: Recipe, probe: bool = False) -> Plan:
    """Return what the recipe's budget buys, without creating anything.

    Args:
        recipe: what would be run.
        probe: time real steps instead of a formula; what they use is charged, so that the plan is for what is left of the budget.

    Raises:
        InputError: when the recipe is wrong or cannot fit.
    """
    meter = Meter(recipe.budget, time.monotonic)
    with meter.spend("setup"):
        assembly = assemble(recipe)
    prepared = prepare(assembly, meter, {})
    flops = forward_flops_per_position(prepared[0].cost, prepared[0].batch)
    reserve = Reserve(evaluation_bound(assembly, flops))
    results = measure_steps(assembly, meter, prepared, recipe.probe_steps or PROBE_STEPS) if probe or recipe.probe_steps else None
    return plan_stages(assembly, prepared, meter, reserve, results)


def plan_stages(assembly: Assembly, prepared: Sequence[Prepared], meter: Meter, reserve: Reserve, probes: Sequence[ProbeResult] | None) -> Plan:
    """Return the plan of what is left on the meter for an assembled recipe."""
    recipe = assembly.recipe
    steps = [_step_cost(assembly, index, known, probes[index] if probes else None) for index, known in enumerate(prepared)]
    limits = flow_limits(recipe.budget)
    parameters, trainable = count_parameters(assembly.plain_module)
    heaviest = max((_memory(assembly, index, known) for index, known in enumerate(prepared)), key=lambda needed: needed.total)
    return make_plan(
        recipe.budget, limits, {unit: meter.spent(unit) for unit in limits}, {unit: reserve.amount(unit) for unit in limits}, steps,
        parameters=parameters, trainable=trainable, memory=heaviest,
        micro_batch={stage.name: known.micro_batch for stage, known in zip(recipe.stages, prepared, strict=True)},
        basis="probe" if probes else "formula",
    )  # fmt: skip


def _memory(assembly: Assembly, index: int, known: Prepared) -> Memory:
    whole = len(next(iter(known.batch.values())))
    return memory(assembly.plain_module, assembly.recipe.stages[index].optimizer, known.cost, known.micro_batch, again=known.micro_batch < whole)


def _step_cost(assembly: Assembly, index: int, known: Prepared, probed: ProbeResult | None) -> StepCost:
    stage, units = assembly.recipe.stages[index], count_units(known.batch)
    mine = known.cost.flops_per_example * units["examples"]
    counted = {"steps": 1.0, **assembly.add_up({**units, "flops": mine})}
    if probed:
        return StepCost(stage.name, stage.share, counted, probed.seconds, probed.low, probed.high)
    seconds = expected_step_seconds(mine, assembly.context.device)
    return StepCost(stage.name, stage.share, counted, seconds, seconds / FORMULA_FACTOR, seconds * FORMULA_FACTOR)
