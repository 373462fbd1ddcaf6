"""Planner: what a recipe's budget buys, said before it is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from outlay.meter import Meter
from outlay.planning.devices import Rate, training_rate
from outlay.planning.plan import Plan, StageCost, make_plan
from outlay.planning.probe import ProbeResult
from outlay.planning.proposing import Choice, choices
from outlay.sources.base import count_units
from outlay.train.adapting import check_priming
from outlay.train.assembly import Assembly, assemble, count_parameters, evaluation_bound, forward_flops_per_position, training_flops
from outlay.train.labels import check_labels
from outlay.train.pace import Reserve, flow_limits
from outlay.train.preparing import Prepared, measure_steps, needed_memory, prepare
from outlay.train.recipe import Recipe
from outlay.train.underway import ROUNDING

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
        check_labels(assembly)
    prepared = prepare(assembly, meter, {})
    check_priming(assembly, meter, prepared[0])
    flops = forward_flops_per_position(prepared[0].cost, prepared[0].batch)
    reserve = Reserve(evaluation_bound(assembly, flops))
    results = measure_steps(assembly, meter, prepared, recipe.probe_steps or PROBE_STEPS) if probe or recipe.probe_steps else None
    return plan_stages(assembly, prepared, meter, reserve, results, begun=False)


def plan_stages(
    assembly: Assembly, prepared: Sequence[Prepared], meter: Meter, reserve: Reserve, probes: Sequence[ProbeResult] | None, begun: bool
) -> Plan:
    """Return the plan of what is left on the meter for an assembled recipe; ``begun``: the evaluation before training has been made."""
    recipe = assembly.recipe
    spent, one = meter.totals(), {**reserve.counted, "seconds": reserve.seconds.get("evaluation", 0.0)}
    coming = evaluations_to_come(recipe, begun)
    rate = None if probes else training_rate(assembly.context.device, assembly.precision)
    steps = [_step_cost(assembly, index, known, probes[index] if probes else rate) for index, known in enumerate(prepared)]
    parameters, trainable = count_parameters(assembly.plain_module)
    heaviest = max((needed_memory(assembly, index, known) for index, known in enumerate(prepared)), key=lambda needed: needed.total)
    return make_plan(
        recipe.budget, steps, basis="probe" if probes else "formula", parameters=parameters, trainable=trainable,
        micro_batch=max(known.micro_batch for known in prepared), memory=heaviest,
        spent={unit: spent.get(unit, 0.0) + coming * one.get(unit, 0.0) for unit in {**spent, **one}},
        reserve={unit: reserve.amount(unit) for unit in flow_limits(recipe.budget)}, notes=[rate.why] if rate else [],
        choices=fitting_choices(assembly, prepared),
    )  # fmt: skip


#: how many other optimizers a plan names
CHOICES = 4


def fitting_choices(assembly: Assembly, prepared: Sequence[Prepared]) -> list[Choice]:
    """Return the optimizers that fit under the budget's memory ceiling, those that are expected to lose the least first; none without a ceiling."""
    ceiling = assembly.recipe.budget.ceilings.get("memory")
    if ceiling is None:
        return []
    known = prepared[0]
    found = choices(assembly.plain_module, known.cost, ceiling, known.most)
    return [choice for choice in found if choice.fits][:CHOICES]


def evaluations_to_come(recipe: Recipe, begun: bool) -> int:
    """Return how many evaluations there will be before the last one, which is reserved: one before training and those on the way."""
    if not recipe.evaluate.exams:
        return 0
    every = recipe.evaluate.every
    on_the_way = math.ceil(1 / every - ROUNDING) - 1 if every else 0
    between = len(recipe.stages) - 1 if every else 0
    return on_the_way * len(recipe.stages) + between + (recipe.evaluate.start and not begun)


def _step_cost(assembly: Assembly, index: int, known: Prepared, timing: ProbeResult | Rate | None) -> StageCost:
    """Return what a step of a stage uses; its seconds are as probed, or follow from its FLOPs and the device's rate."""
    stage, units = assembly.recipe.stages[index], count_units(known.batch)
    mine = training_flops(stage, known.cost) * units["examples"]
    counted = assembly.add_up({**units, "flops": mine})
    if isinstance(timing, ProbeResult):
        return StageCost(stage.name, counted, timing.seconds, timing.low, timing.high, stage.share)
    assert timing is not None
    return StageCost(stage.name, counted, *timing.seconds(mine), stage.share)
