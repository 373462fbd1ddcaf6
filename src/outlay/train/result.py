"""Result: what a run came to and where its budget went."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from outlay.train.assembly import count_parameters, versions

if TYPE_CHECKING:
    from outlay.train.loop import Spending

NAME = "result.json"

#: exit codes
SPENT, WRONG_INPUT, STOPPED, FAILED = 0, 2, 3, 4


@dataclass
class Result:
    """What a run came to. Written to ``result.json``.

    Args:
        name: the recipe's name.
        ended_by: the unit whose limit ended the run, ``signal`` or ``failure``.
        exit_code: 0 spent, 3 stopped by a signal, 4 failed.
        budget: unit -> {limit, spent} for every limited unit.
        spent: unit -> amount for every unit that was used; the accounts sum to it.
        accounts: account -> unit -> amount.
        lost: unit -> amount that kills threw away. Lost seconds are also in ``accounts["lost"]``; lost counted units were done again and do
            not count against their limits.
        metrics: the last evaluation.
        metrics_start: the evaluation before training.
        stages: name, steps, share, spent and final loss (mean over the last 20 steps) of every stage that ended.
        seed: root seed.
        versions: package -> version.
        parameters: size of the model.
        steps: updates finished.
        plan: what was planned before spending.
        peak_memory: most bytes held on an accelerator; None on a CPU, where Python and its libraries cannot be told apart from the run.
        warnings: what went wrong without ending the run.
        folder: the run directory.
    """

    name: str
    ended_by: str
    exit_code: int
    budget: dict[str, dict[str, float]]
    spent: dict[str, float]
    accounts: dict[str, dict[str, float]]
    lost: dict[str, float]
    metrics: dict[str, float]
    metrics_start: dict[str, float]
    stages: list[dict[str, Any]]
    seed: int
    versions: dict[str, str]
    parameters: int
    steps: int
    plan: dict[str, Any] | None
    peak_memory: float | None = None
    warnings: list[str] = field(default_factory=list)
    folder: str = ""

    def write(self) -> None:
        """Write ``result.json`` aside and rename it."""
        path = Path(self.folder) / NAME
        aside = path.with_suffix(".incomplete")
        plain = asdict(self)
        plain.pop("folder")
        aside.write_text(json.dumps(plain, indent=1), encoding="utf-8")
        os.replace(aside, path)


def finish_result(run: Spending, folder: Path, ended_by: str, code: int, plan: dict[str, Any] | None) -> Result:
    """Return the result as the books stand now."""
    meter, recipe = run.meter, run.assembly.recipe
    accounts = meter.books()
    spent = meter.totals()
    device = run.assembly.accelerator.device
    peak = float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None
    budget = {unit: {"limit": limit, "spent": spent[unit]} for unit, limit in recipe.budget.limits.items()}
    return Result(
        recipe.name, ended_by, code, budget, spent, accounts, dict(meter.lost), run.metrics, run.metrics_start, run.stages, recipe.seed,
        versions(), count_parameters(run.assembly.plain_module)[0], run.step, plan, peak, list(run.journal.warnings), str(folder),
    )  # fmt: skip
