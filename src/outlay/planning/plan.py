"""Plan: what a budget buys, worked out from numbers alone before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from outlay.budget import WHOLE, Budget, format_amount
from outlay.planning.memory import Memory
from outlay.planning.text import size

#: a time worked out from a formula may be off by this factor either way; one from a probe by the spread of its steps
FORMULA_FACTOR = 2.0


@dataclass(frozen=True)
class StepCost:
    """What one step of a stage uses.

    Args:
        name: of the stage.
        share: of the budget, relative to the other stages'.
        counted: unit -> amount of steps, examples, tokens, flops.
        seconds: expected, between ``low`` and ``high``.
        low: what a quick step takes.
        high: what a slow step takes.
    """

    name: str
    share: float
    counted: Mapping[str, float]
    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """What a budget buys.

    Args:
        parameters: of the model.
        trainable: of them, those that are trained.
        memory: parts in bytes: weights, gradients, optimizer, activations, total.
        micro_batch: examples a forward pass, by stage.
        flops_per_step: by stage.
        tokens_per_step: by stage; 0 where the source has none.
        step_seconds: by stage.
        basis: where the seconds come from.
        buys: unit -> amount that training gets of every unit.
        steps_between: fewest and most steps, by what is known of their time.
        ends_by: the unit that will end the run.
        reserve: unit -> amount kept for evaluation, checkpoint and report.
        before: unit -> amount that has been spent before the first step.
        notes: what will not fit, and what was assumed.
    """

    parameters: int
    trainable: int
    memory: Memory | None
    micro_batch: dict[str, int]
    flops_per_step: dict[str, float]
    tokens_per_step: dict[str, float]
    step_seconds: dict[str, float]
    basis: Literal["formula", "probe"]
    buys: dict[str, float]
    steps_between: tuple[float, float]
    ends_by: str
    reserve: dict[str, float]
    before: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values: for the run as a whole (means over its steps), and for each of its ``stages``."""
        steps = max(1.0, self.buys["steps"])
        bought = {unit: self.buys.get(unit) for unit in ("steps", "tokens", "seconds", "flops")}
        stages = [
            {
                "name": name, "micro_batch": self.micro_batch[name], "flops_per_step": self.flops_per_step[name],
                "tokens_per_step": self.tokens_per_step[name], "step_seconds": seconds,
            }
            for name, seconds in self.step_seconds.items()
        ]  # fmt: skip
        return {
            "parameters": self.parameters, "trainable": self.trainable, "memory": asdict(self.memory) if self.memory else None,
            "micro_batch": max(self.micro_batch.values()), "flops_per_step": self.buys.get("flops", 0.0) / steps,
            "tokens_per_step": self.buys.get("tokens", 0.0) / steps, "step_seconds": self.buys.get("seconds", 0.0) / steps,
            "basis": self.basis, **bought, "steps_between": list(self.steps_between), "ends_by": self.ends_by, "reserve": self.reserve,
            "before": self.before, "notes": list(self.notes), "stages": stages,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """Return the plan as lines for a terminal."""
        frozen = f", {self.trainable:,} of them trained" if self.trainable != self.parameters else ""
        lines = [f"parameters   {self.parameters:,}{frozen}"]
        if self.memory:
            parts = asdict(self.memory)
            lines.append(f"memory       {size(parts.pop('total'))} at the worst moment: " + ", ".join(f"{k} {size(v)}" for k, v in parts.items()))
        for name, seconds in self.step_seconds.items():
            tokens = f", {self.tokens_per_step[name]:,.0f} tokens" if self.tokens_per_step[name] else ""
            lines.append(
                f"a step       {name}: {self.flops_per_step[name]:.3g} FLOPs{tokens}, {seconds:.3g} s by {self.basis}, micro-batch {self.micro_batch[name]}"
            )
        low, high = self.steps_between
        lines.append(f"training     {self.buys['steps']:,.0f} steps ({low:,.0f} to {high:,.0f}): " + ", ".join(
            f"{amount:.4g} {unit}" for unit, amount in self.buys.items() if unit != "steps"))  # fmt: skip
        kept = ", ".join(format_amount(unit, float(f"{amount:.4g}")) for unit, amount in self.reserve.items() if amount > 0)
        lines.append(f"kept back    {kept or 'nothing'} for the last evaluation, checkpoint and report")
        lines.append(f"ends by      {self.ends_by}")
        return lines + [f"note         {note}" for note in self.notes]


def steps_bought(limits: Mapping[str, float], before: Mapping[str, float], reserve: Mapping[str, float], stages: Sequence[StepCost],
                 pace: Literal["seconds", "low", "high"] = "seconds") -> tuple[dict[str, int], str]:  # fmt: skip
    """Return how many steps each stage gets when every step costs the same, and the unit that ends the last stage.

    A stage gets its share of what is left after the reserve; what it does not use rolls over.

    Args:
        limits: unit -> declared amount, money turned into the unit it is priced by.
        before: unit -> what has been spent before the first step.
        reserve: unit -> what must be left at the end.
        stages: in order.
        pace: which of a step's times to count with.
    """
    left = {unit: max(0.0, limit - before.get(unit, 0.0) - reserve.get(unit, 0.0)) for unit, limit in limits.items()}
    steps: dict[str, int] = {}
    ends_by = next(iter(limits))
    for number, stage in enumerate(stages):
        share = stage.share / math.fsum(later.share for later in stages[number:])
        cost = {**stage.counted, "seconds": getattr(stage, pace)}
        most = {unit: _fitting(amount * share, cost.get(unit, 0.0), unit) for unit, amount in left.items()}
        ends_by = min(most, key=lambda unit: most[unit])
        count = int(most[ends_by]) if math.isfinite(most[ends_by]) else 0
        steps[stage.name] = count
        left = {unit: amount - count * cost.get(unit, 0.0) for unit, amount in left.items()}
    return steps, ends_by


def _fitting(amount: float, each: float, unit: str) -> float:
    if each <= 0:
        return math.inf
    # a rounding error must not cost a step
    return math.floor((math.floor(amount + 1e-6) if unit in WHOLE else amount) / each + 1e-9)


def make_plan(budget: Budget, limits: Mapping[str, float], before: Mapping[str, float], reserve: Mapping[str, float],
              stages: Sequence[StepCost], *, parameters: int, trainable: int, memory: Memory | None, micro_batch: Mapping[str, int],
              basis: Literal["formula", "probe"]) -> Plan:  # fmt: skip
    """Return what a budget buys; a pure function of numbers.

    Args:
        budget: as declared, for its ceilings.
        limits: flow limits, money turned into the unit it is priced by.
        before: what has been spent before the first step.
        reserve: what is kept for the end.
        stages: cost of a step, by stage.
        parameters, trainable, memory, micro_batch, basis: see ``Plan``.
    """
    steps, ends_by = steps_bought(limits, before, reserve, stages)
    fewest = sum(steps_bought(limits, before, reserve, stages, "high")[0].values())
    most = sum(steps_bought(limits, before, reserve, stages, "low")[0].values())
    buys: dict[str, float] = {"steps": 0.0}
    for stage in stages:
        for unit, amount in {**stage.counted, "seconds": stage.seconds}.items():
            buys[unit] = buys.get(unit, 0.0) + steps[stage.name] * amount
    return Plan(
        parameters, trainable, memory, dict(micro_batch),
        {stage.name: stage.counted.get("flops", 0.0) for stage in stages}, {stage.name: stage.counted.get("tokens", 0.0) for stage in stages},
        {stage.name: stage.seconds for stage in stages}, basis, buys, (fewest, most), ends_by, dict(reserve), dict(before),
        tuple(_notes(budget, limits, before, reserve, memory, steps)),
    )  # fmt: skip


def _notes(budget: Budget, limits: Mapping[str, float], before: Mapping[str, float], reserve: Mapping[str, float], memory: Memory | None,
           steps: Mapping[str, int]) -> list[str]:  # fmt: skip
    notes = []
    ceiling = budget.ceilings.get("memory")
    if ceiling and memory and memory.total > ceiling:
        notes.append(f"does not fit: the run needs {size(memory.total)} and the memory ceiling is {size(ceiling)}")
    for unit, limit in limits.items():
        if before.get(unit, 0.0) + reserve.get(unit, 0.0) >= limit:
            taken, kept = before.get(unit, 0.0), reserve.get(unit, 0.0)
            notes.append(f"nothing is left to train with: of {limit:.4g} {unit}, {taken:.4g} go before the first step and {kept:.4g} are kept for the end")
    for name, count in steps.items():
        if count == 0:
            notes.append(f"the stage {name} gets no step; give it more budget, smaller batches or fewer evaluations")
    return notes
