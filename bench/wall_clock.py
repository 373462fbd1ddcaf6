"""A schedule clocked by seconds against the same schedule clocked by steps, while the throughput drifts by 20 % up and down.

    python bench/wall_clock.py [--seeds 10] [--seconds 5]

The run by seconds reads a clock that runs faster and slower than the real one in turn, so that its steps a second swing by +-20 %. The run by
steps is given as many steps as the other came to, with the same seed, so both have done the same work; what differs is the learning rate that
each step saw. Their held-out losses are compared seed by seed, beside the spread that seeds alone make.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import tempfile
import time
from pathlib import Path

import outlay
from outlay.bench import load_workload
from outlay.bench.statistics import mean_interval
from outlay.train import load_recipe

#: the swing of the throughput, and how many times it swings within a budget
DRIFT, SWINGS = 0.2, 2.5


def drifting(seconds: float) -> object:
    """Return a clock whose rate against the real one swings between 1 - DRIFT and 1 + DRIFT."""
    began, omega = time.monotonic(), 2 * math.pi * SWINGS / seconds

    def clock() -> float:
        passed = time.monotonic() - began
        return passed + DRIFT / omega * (1 - math.cos(omega * passed))

    return clock


def spend(budget: str, schedule: str, seed: int, seconds: float | None) -> outlay.Result:
    plain = copy.deepcopy(load_workload("mnist1d-mlp-sgd").recipe) | {"budget": budget, "seed": seed, "threads": 1, "name": "clock"}
    plain["stages"][0].setdefault("knobs", {})["lr"] = {"peak": 0.1, "schedule": schedule}
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(plain)
        if seconds is None:
            return outlay.run(recipe, Path(folder) / "run")
        return outlay.run(recipe, Path(folder) / "run", clock=drifting(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    spend("20 steps", "rex", 0, None)  # imports and data are on nobody's budget here
    for schedule in ("rex", "linear"):
        by_seconds, by_steps, steps = [], [], []
        for seed in range(asked.seeds):
            timed = spend(f"{asked.seconds:g}s", schedule, seed, asked.seconds)
            counted = spend(f"{timed.steps} steps", schedule, seed, None)
            by_seconds.append(timed.metrics["test/loss"])
            by_steps.append(counted.metrics["test/loss"])
            steps.append(timed.steps)
        paired = mean_interval([a - b for a, b in zip(by_seconds, by_steps, strict=True)])
        noise = statistics.stdev(by_steps)
        verdict = "within seed noise" if abs(paired.mean) < noise and paired.low <= 0 <= paired.high else "NOT within seed noise"
        print(
            f"{schedule:8} {asked.seconds:g} s with +-{DRIFT:.0%}: {min(steps)}-{max(steps)} steps; test loss by seconds "
            f"{statistics.mean(by_seconds):.4f}, by steps {statistics.mean(by_steps):.4f}; difference {paired}; "
            f"spread over seeds {noise:.4f}: {verdict}"
        )


if __name__ == "__main__":
    main()
