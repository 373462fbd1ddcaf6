"""Quickstart over seeds: exact match on held-out problems before, where each further stage begins, and after, with 95 % intervals.

    python bench/quickstart.py [--seeds 5] [--recipe quickstart] [--budget 150s]

Each seed is a process of its own (``outlay run RECIPE``), timed from outside. The interval is Student's over seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: 97.5 % quantiles of Student's t for 1 to 9 degrees of freedom
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def spend(recipe: str, seed: int, budget: str | None, folder: Path) -> tuple[dict[str, Any], float]:
    """Run the recipe with a seed; return its result and the seconds of the whole process."""
    command = [sys.executable, "-m", "outlay.cli", "run", recipe, "--set", f"seed={seed}", "--out", str(folder)]
    began = time.monotonic()
    subprocess.run([*command, *(["--budget", budget] if budget else [])], check=True, stdout=subprocess.DEVNULL)
    lasted = time.monotonic() - began
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    seen = [line for line in lines if line["kind"] == "evaluation" and line["when"] == "during"]
    #: what was measured where a stage began after another
    result["began"] = {
        stage["name"]: next((e["metrics"] for e in seen if e["stage"] == stage["name"]), {}) for stage in result["stages"][1:]
    }
    return result, lasted


def interval(values: list[float]) -> str:
    """Return mean and half-width of the 95 % interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = STUDENT[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.3f} ± {half:.3f}"


def main() -> int:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 11))
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--budget", default=None)
    asked = parser.parse_args()
    results = []
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            result, lasted = spend(asked.recipe, seed, asked.budget, Path(scratch, "run"))
        results.append(result)
        limit = " ".join(f"{kept['spent']:.1f} of {kept['limit']:.0f} {unit}" for unit, kept in result["budget"].items())
        print(
            f"seed {seed}: {limit}, process {lasted:.1f} s, {result['steps']} steps, {result['spent'].get('tokens', 0):,.0f} tokens",
            flush=True,
        )
    stages = list(results[0]["began"])
    print(f"\n{'metric':<28}{'before':>10}" + "".join(f"{'before ' + stage:>20}" for stage in stages) + f"{'after':>20}")
    for name in results[0]["metrics"]:
        before = statistics.fmean(result["metrics_start"].get(name, math.nan) for result in results)
        between = [interval([result["began"][stage].get(name, math.nan) for result in results]) for stage in stages]
        print(f"{name:<28}{before:>10.3f}" + "".join(f"{cell:>20}" for cell in [*between, interval([r["metrics"][name] for r in results])]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
