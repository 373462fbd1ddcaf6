"""Budgets kept: runs limited by seconds, tokens, steps and FLOPs end within max(0.5 %, one step) of their limit and never over it.

    python bench/budgets_kept.py [--runs 20]

Seconds are tried twice, with throughput noise of +-20 % a pass: on a simulated clock, where only work takes time, and on the real clock,
with passes that really sleep. The final evaluation and the checkpoint are inside the limit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from settings import Paced, SimulatedClock, SleepingClock, digits, language_model

import outlay
from outlay.rng import numpy_generator


def seconds_run(folder: Path, seed: int, clock: SimulatedClock, budget: float) -> tuple[float, float, float]:
    """Spend ``budget`` seconds and return limit, spent and the longest step."""
    recipe = digits(
        seed=seed, evaluate={"exams": [{"held_out_loss": {"examples": 128, "batch_size": 16}}], "every": 0.2}, budget=f"{budget:.6f}s"
    )
    objective = Paced(clock.work)
    exams = tuple(dataclasses.replace(exam, objective=objective) for exam in recipe.evaluate.exams)
    stage = dataclasses.replace(recipe.stages[0], objective=objective, batch_size=16)
    recipe = dataclasses.replace(recipe, stages=(stage,), evaluate=dataclasses.replace(recipe.evaluate, exams=exams))
    result = outlay.run(recipe, folder, clock=clock)
    return result.budget["seconds"]["limit"], result.budget["seconds"]["spent"], longest_step(folder)


def longest_step(folder: Path) -> float:
    """Return the most seconds between two neighbouring step lines of a journal that have no other line between them."""
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return max((b["at"] - a["at"] for a, b in pairwise(lines) if a["kind"] == b["kind"] == "step"), default=0.0)


def counted_run(folder: Path, seed: int, unit: str) -> tuple[float, float, float]:
    """Spend a random budget in a counted unit and return limit, spent and what one step takes."""
    share = float(numpy_generator(seed, "budget").random())
    limits = {
        "steps": f"{int(40 + 60 * share)} steps",
        "tokens": f"{int(60_000 + 60_000 * share)} tokens",
        "flops": f"{3e10 + 3e10 * share:.6e} flops",
    }
    result = outlay.run(language_model(limits[unit], seed=seed), folder)
    return result.budget[unit]["limit"], result.budget[unit]["spent"], result.accounts["train"][unit] / result.steps


def main() -> int:
    """Run all and print a line a kind; the exit status is 1 when one run missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    missed = 0
    print(f"{'limited by':<26}{'runs':>5}{'over':>6}{'missed':>8}{'largest gap':>14}{'of the limit':>14}{'in steps':>10}")
    for kind in ("seconds (simulated clock)", "seconds (real clock)", "tokens", "steps", "flops"):
        gaps, over, wrong = [], 0, 0
        for seed in range(runs):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch, "run")
                if kind == "seconds (simulated clock)":
                    limit, spent, step = seconds_run(folder, seed, SimulatedClock(1e-3, 0.2, seed), 20 + seed)
                elif kind == "seconds (real clock)":
                    limit, spent, step = seconds_run(folder, seed, SleepingClock(1e-3, 0.2, seed), 20)
                else:
                    limit, spent, step = counted_run(folder, seed, kind)
            over += spent > limit
            wrong += not 0 <= limit - spent <= max(0.005 * limit, step)
            gaps.append((limit - spent, (limit - spent) / limit, (limit - spent) / step if step else 0.0))
        missed += wrong
        worst = max(gaps)
        print(f"{kind:<26}{runs:>5}{over:>6}{wrong:>8}{worst[0]:>14.5g}{worst[1]:>14.2%}{worst[2]:>10.2f}", flush=True)
    print("kept" if not missed else f"NOT kept: {missed} runs")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
