"""Planning: what a run will cost, what a budget buys, and what fits, before anything is spent."""

from __future__ import annotations

from outlay.planning.cost import Cost, Costs, formula_cost, measure, shape_key
from outlay.planning.devices import Rate, measure_device, rate_by_name, training_rate
from outlay.planning.memory import Memory, available_memory, choose_micro_batch, memory
from outlay.planning.plan import Plan, StageCost, StagePlan, make_plan
from outlay.planning.probe import ProbeResult, probe

__all__ = [
    "Cost",
    "Costs",
    "Memory",
    "Plan",
    "ProbeResult",
    "Rate",
    "StageCost",
    "StagePlan",
    "available_memory",
    "choose_micro_batch",
    "formula_cost",
    "make_plan",
    "measure",
    "measure_device",
    "memory",
    "probe",
    "rate_by_name",
    "shape_key",
    "training_rate",
]
