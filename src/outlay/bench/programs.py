"""Programs: how a method spends its budget. All but one are a single run; refinement is two, and both are paid for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from outlay.bench.jobs import Job
from outlay.budget import Budget
from outlay.catalog import describe
from outlay.schedules.linear import Linear
from outlay.schedules.refined import Refined
from outlay.train.reading import load_recipe
from outlay.train.result import Result


def single(job: Job, folder: Path) -> dict[str, Any]:
    """Spend the recipe once."""
    from outlay.train.run import run

    return _row(run(load_recipe(job.recipe()), folder / "run"))


def refined(job: Job, folder: Path) -> dict[str, Any]:
    """Spend half of the budget on a linear decay that logs its gradient norms, and the rest from scratch on the refined schedule."""
    from outlay.train.run import run

    plain = job.recipe()
    budget = job.workload.budget(job.share)
    unit, amount = next(iter(budget.limits.items()))
    first = amount / 2 if unit in ("seconds", "flops", "usd") else float(amount // 2)
    metric = "gradient_l1" if job.method.order == 1 else "gradient_norm"
    for stage in job.tuned(plain):
        stage["knobs"][job.workload.knob] = {"peak": job.peak, "schedule": describe(Linear())}
        stage["measure"] = ["gradient_l1"] if metric == "gradient_l1" else []
    before = _whole(run(load_recipe(plain | {"budget": str(Budget({unit: first}, budget.ceilings, budget.price))}), folder / "first"))
    schedule = Refined(folder / "first" / "journal.jsonl", order=job.method.order, metric=metric)
    for stage in job.tuned(plain):
        stage["knobs"][job.workload.knob] = {"peak": job.peak, "schedule": describe(schedule)}
        stage["measure"] = []
    rest = Budget({unit: amount - first}, budget.ceilings, budget.price)
    row = _row(run(load_recipe(plain | {"budget": str(rest)}), folder / "second"))
    together = {unit: before.spent.get(unit, 0.0) + spent for unit, spent in row["spent"].items()}
    return row | {"spent": together, "accounts": {**row["accounts"], "first run": before.spent}, "steps": before.steps + row["steps"]}


def _whole(result: Result) -> Result:
    """Return a run that was spent to its end; one that was stopped from outside says nothing, and neither will those after it."""
    if result.ended_by == "signal":
        raise KeyboardInterrupt
    return result


def _row(result: Result) -> dict[str, Any]:
    result = _whole(result)
    return {
        "metrics": result.metrics, "spent": result.spent, "steps": result.steps, "ended_by": result.ended_by,
        "accounts": {account: dict(units) for account, units in result.accounts.items()}, "versions": result.versions,
    }  # fmt: skip


PROGRAMS: dict[str, Callable[[Job, Path], dict[str, Any]]] = {"run": single, "refined": refined}
