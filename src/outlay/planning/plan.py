"""Plan: what a budget buys, before it is spent. Pure arithmetic on the cost of a step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from outlay.budget import WHOLE, Budget
from outlay.errors import InputError
from outlay.planning.text import amount, duration, short, size

if TYPE_CHECKING:
    from outlay.planning.memory import Memory
    from outlay.planning.proposing import Choice

Basis = Literal["formula", "probe"]
#: units in the order they are shown; others follow
UNITS = ("steps", "examples", "tokens", "seconds", "flops", "usd")


@dataclass(frozen=True)
class StageCost:
    """What one optimizer step of a stage uses.

    Args:
        name: the stage's.
        units: amounts of counted units a step, such as ``examples``, ``tokens`` and ``flops``; finite, >= 0. ``steps`` is 1 by itself.
        seconds: expected seconds a step, > 0.
        low: the least that is likely.
        high: the most that is likely.
        share: weight of the stage in the division of the budget, > 0.
    """

    name: str
    units: Mapping[str, float]
    seconds: float
    low: float
    high: float
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.seconds <= self.high < math.inf:
            raise InputError(f"seconds a step must be > 0 and lie between low and high, found {self.low}, {self.seconds}, {self.high}")
        if not (math.isfinite(self.share) and self.share > 0):
            raise InputError(f"the share of stage {self.name!r} must be > 0, found {self.share}")
        for unit, value in self.units.items():
            if not math.isfinite(value) or value < 0:
                raise InputError(f"stage {self.name!r} uses {value!r} {unit} a step; it must be finite and >= 0")


@dataclass(frozen=True)
class StagePlan:
    """What a stage's part of the budget buys.

    Args:
        name: the stage's.
        share: its part of the budget, in (0, 1].
        steps: whole optimizer steps.
        amounts: unit -> what the steps use.
        ends_by: the declared unit that ends the stage; None when none of the limited units is used.
    """

    name: str
    share: float
    steps: int | None
    amounts: dict[str, float]
    ends_by: str | None


@dataclass(frozen=True)
class Plan:
    """What a budget buys. Amounts are those of the training steps; what is kept for the end of the run is in ``reserve``.

    Args:
        parameters: of the model.
        trainable: those that are trained.
        micro_batch: examples a forward pass.
        memory: None when it is not known.
        flops_per_step: mean over the planned steps.
        tokens_per_step: mean over the planned steps.
        step_seconds: mean over the planned steps.
        basis: whether the seconds come from a formula or were probed.
        steps: None when nothing ends the run.
        amounts: unit -> what all steps use: ``tokens``, ``examples``, ``seconds``, ``flops``, ``usd`` where priced.
        interval: unit -> (low, high), from the spread of the seconds a step. Equal ends for what does not depend on speed.
        ends_by: the unit that ends the run.
        reserve: unit -> kept for the end of the run.
        stages: the parts, in order.
        notes: what does not fit, and what else should be known.
        choices: optimizers that fit under the memory ceiling, those that are expected to lose the least first.
    """

    parameters: int
    trainable: int
    micro_batch: int
    memory: Memory | None
    flops_per_step: float
    tokens_per_step: float
    step_seconds: float
    basis: Basis
    steps: int | None
    amounts: dict[str, float]
    interval: dict[str, tuple[float, float]]
    ends_by: str | None
    reserve: dict[str, float] = field(default_factory=dict)
    stages: tuple[StagePlan, ...] = ()
    notes: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the budget buys at least one step of every stage."""
        return self.steps is None or all(stage.steps for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values; the amounts stand at the top level."""
        plain = dataclasses.asdict(self)
        amounts = plain.pop("amounts")
        nothing = None if self.steps is None else 0.0
        return {
            **plain, **{unit: amounts.get(unit, nothing) for unit in ("tokens", "seconds", "flops", *amounts)},
            "interval": {unit: list(ends) for unit, ends in self.interval.items()},
            "stages": [dataclasses.asdict(stage) for stage in self.stages], "notes": list(self.notes),
            "choices": [dataclasses.asdict(choice) for choice in self.choices],
        }  # fmt: skip

    def rows(self) -> list[tuple[str, str]]:
        """Return the plan as (what, text) pairs for a table."""
        rows = [("model", f"{short(self.parameters)} parameters, {short(self.trainable)} trained")]
        if self.memory:
            parts = ", ".join(f"{name} {size(getattr(self.memory, name))}" for name in ("weights", "gradients", "optimizer", "activations"))
            rows.append(("memory", f"{size(self.memory.total)}: {parts} (micro-batch {self.micro_batch})"))
        tokens = f"{short(self.tokens_per_step)} tokens, " if self.tokens_per_step else ""
        rows.append(("a step", f"{tokens}{short(self.flops_per_step)} FLOPs, {duration(self.step_seconds)} (from a {self.basis})"))
        if self.steps is None:
            rows.append(("buys", "no end: nothing that is limited is used"))
        else:
            bought = ["steps", *(unit for unit, value in self.amounts.items() if value)]
            rows.append(("buys", ", ".join(self._bought(unit) for unit in bought)))
            rows.append(("ends by", str(self.ends_by)))
        if any(self.reserve.values()):
            rows.append(("kept back", ", ".join(amount(unit, value) for unit, value in self.reserve.items() if value)))
        if len(self.stages) > 1 and self.steps is not None:
            rows += [(f"stage {stage.name}", f"{stage.steps:,} steps, ends by {stage.ends_by}") for stage in self.stages]
        rows += [("fits as well", choice.text()) for choice in self.choices]
        return rows + [("note", note) for note in self.notes]

    def lines(self) -> list[str]:
        """Return the plan as lines of text for a terminal."""
        rows = self.rows()
        width = max(len(what) for what, _ in rows)
        return [f"{what:<{width}}  {text}" for what, text in rows]

    def _bought(self, unit: str) -> str:
        value = float(self.steps or 0) if unit == "steps" else self.amounts[unit]
        low, high = self.interval.get(unit, (value, value))
        middle = f"{value:,.0f} steps" if unit == "steps" else amount(unit, value)
        return middle if low == high else f"{middle} ({amount(unit, low)} to {amount(unit, high)})"


def make_plan(
    budget: Budget,
    stages: Sequence[StageCost],
    *,
    basis: Basis,
    parameters: int,
    trainable: int,
    micro_batch: int,
    memory: Memory | None = None,
    reserve: Mapping[str, float] | None = None,
    spent: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
    choices: Sequence[Choice] = (),
) -> Plan:
    """Return what a budget buys. The stages are filled in order, each with its share of what the ones before it left.

    steps_i = the most k with k cost_u <= share_i / (share_i + ... + share_n) left_u for every limited unit u, where
    left_u = limit_u - spent_u - reserve_u - what the stages before i use

    Args:
        budget: what may be spent.
        stages: what a step of each costs; at least one.
        basis: where the seconds come from.
        parameters: of the model; compared with the budget's ceiling.
        trainable: those that are trained.
        micro_batch: examples a forward pass.
        memory: what the run holds; compared with the budget's ceiling.
        reserve: unit -> what must be left for the end of the run.
        spent: unit -> what has been spent already.
        notes: what else should be known.
        choices: optimizers that fit as well.

    Raises:
        InputError: when there is no stage.
    """
    if not stages:
        raise InputError("a plan needs at least one stage")
    kept, gone = dict(reserve or {}), dict(spent or {})
    middle = _fill(budget, stages, [stage.seconds for stage in stages], kept, gone)
    slow = _fill(budget, stages, [stage.high for stage in stages], kept, gone)
    fast = _fill(budget, stages, [stage.low for stage in stages], kept, gone)
    steps, amounts = _total(middle)
    first = stages[0]
    per_step = {**first.units, "seconds": first.seconds}
    if steps:
        per_step |= {unit: value / steps for unit, value in amounts.items()}
    return Plan(
        parameters=parameters, trainable=trainable, micro_batch=micro_batch, memory=memory, basis=basis,
        flops_per_step=per_step.get("flops", 0.0), tokens_per_step=per_step.get("tokens", 0.0), step_seconds=per_step["seconds"],
        steps=steps, amounts=amounts, interval=_interval([middle, slow, fast]), ends_by=middle[-1].ends_by, reserve=kept,
        stages=tuple(middle), choices=tuple(choices),
        notes=(*_ceiling_notes(budget, parameters, memory), *_limit_notes(budget, stages, middle, kept, gone), *notes),
    )  # fmt: skip


def _fill(
    budget: Budget, stages: Sequence[StageCost], seconds: Sequence[float], reserve: Mapping[str, float], spent: Mapping[str, float]
) -> list[StagePlan]:
    left = {unit: limit - _of(budget, spent, unit) - _of(budget, reserve, unit) for unit, limit in budget.limits.items()}
    plans: list[StagePlan] = []
    for number, (stage, slow) in enumerate(zip(stages, seconds, strict=True)):
        costs = _step_units(budget, stage, slow)
        share = stage.share / math.fsum(later.share for later in stages[number:])
        parts = {unit: math.floor(rest * share) if unit in WHOLE else rest * share for unit, rest in left.items()}
        bought = {unit: _most(part, costs[unit]) for unit, part in parts.items() if costs.get(unit)}
        ends_by = min(bought, key=lambda unit: bought[unit]) if bought else None
        steps = bought[ends_by] if ends_by else None
        used = {unit: steps * cost for unit, cost in costs.items() if unit != "steps"} if steps is not None else {}
        left = {unit: rest - (float(steps or 0) if unit == "steps" else used.get(unit, 0.0)) for unit, rest in left.items()}
        whole = stage.share / math.fsum(each.share for each in stages)
        plans.append(StagePlan(stage.name, whole, steps, used, ends_by))
        if steps is None:
            break
    return plans


def _step_units(budget: Budget, stage: StageCost, seconds: float) -> dict[str, float]:
    units = {**stage.units, "steps": 1.0, "seconds": seconds}
    if budget.price:
        units["usd"] = budget.price.usd * units.get(budget.price.per, 0.0)
    return units


def _of(budget: Budget, amounts: Mapping[str, float], unit: str) -> float:
    """Return an amount of a unit; money follows from the unit that has a price."""
    if unit == "usd" and budget.price and unit not in amounts:
        return budget.price.usd * amounts.get(budget.price.per, 0.0)
    return amounts.get(unit, 0.0)


def _most(limit: float, cost: float) -> int:
    """Return the largest k >= 0 with k * cost <= limit, exactly in floating point."""
    if limit < cost:
        return 0
    k = math.floor(limit / cost)
    if k >= 2**52:
        return k  # a step more or less is below what a float tells apart
    while k * cost > limit:
        k -= 1
    while (k + 1) * cost <= limit:
        k += 1
    return k


def _total(plans: Sequence[StagePlan]) -> tuple[int | None, dict[str, float]]:
    if any(plan.steps is None for plan in plans):
        return None, {}
    units = {unit for plan in plans for unit in plan.amounts}
    ordered = [unit for unit in UNITS if unit in units] + sorted(units.difference(UNITS))
    amounts = {unit: math.fsum(plan.amounts.get(unit, 0.0) for plan in plans) for unit in ordered}
    return sum(plan.steps or 0 for plan in plans), amounts


def _interval(fills: Sequence[Sequence[StagePlan]]) -> dict[str, tuple[float, float]]:
    totals = []
    for plans in fills:
        steps, amounts = _total(plans)
        if steps is None:
            return {}
        totals.append({"steps": float(steps), **amounts})
    return {unit: (min(total[unit] for total in totals), max(total[unit] for total in totals)) for unit in totals[0]}


def _ceiling_notes(budget: Budget, parameters: int, memory: Memory | None) -> list[str]:
    notes = []
    ceiling = budget.ceilings.get("memory")
    if memory and ceiling is not None and memory.total > ceiling:
        notes.append(f"memory: needs {size(memory.total)}, ceiling {size(ceiling)}")
    most = budget.ceilings.get("params")
    if most is not None and parameters > most:
        notes.append(f"params: {short(parameters)} over the ceiling of {short(most)}")
    return notes


def _limit_notes(
    budget: Budget, stages: Sequence[StageCost], plans: Sequence[StagePlan], reserve: Mapping[str, float], spent: Mapping[str, float]
) -> list[str]:
    notes = []
    for unit, limit in budget.limits.items():
        kept, gone = _of(budget, reserve, unit), _of(budget, spent, unit)
        if limit - gone - kept <= 0:
            held = f"the reserve of {amount(unit, kept)}" if kept else "what is spent"
            after = f" after {amount(unit, gone)} spent" if kept and gone else ""
            notes.append(f"{unit}: {held} leaves nothing of {amount(unit, limit)}{after}")
    for stage, plan in zip(stages, plans, strict=False):
        if plan.steps is None:
            limited = ", ".join(budget.limits) or "nothing"
            notes.append(f"stage {stage.name} never ends: limited is {limited}, and its steps use none of it")
        elif plan.steps == 0 and not notes:
            cost = _step_units(budget, stage, stage.seconds)[str(plan.ends_by)]
            notes.append(f"stage {stage.name}: not one step fits; a step costs {amount(str(plan.ends_by), cost)}")
    return notes
