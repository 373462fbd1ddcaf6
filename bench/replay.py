"""Replay: a run limited by seconds is repeated from its journal with bitwise the same weights.

python bench/replay.py [--runs 5]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from settings import digits, language_model

import outlay


def main() -> int:
    """Run, replay and compare; the exit status is 1 when a byte differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    same = 0
    with tempfile.TemporaryDirectory() as scratch:  # imports take seconds once, and they would be on the first run's budget
        outlay.run(language_model("1 steps", evaluate={}), Path(scratch, "warm"))
    for seed in range(runs):
        with tempfile.TemporaryDirectory() as scratch:
            recipe = digits(budget="4s", seed=seed, evaluate={"exams": [{"held_out_loss": {"objective": "classification"}}], "every": 0.2})
            if seed % 2:
                recipe = language_model("6s", seed=seed)
            first, again = Path(scratch, "first"), Path(scratch, "again")
            result = outlay.run(recipe, first)
            repeated = outlay.replay(first, again)
            equal = (first / "model/model.safetensors").read_bytes() == (again / "model/model.safetensors").read_bytes()
            same += equal and result.steps == repeated.steps
            spent = result.spent["seconds"]
            print(
                f"{recipe.name} seed {seed}: {result.steps} steps in {spent:.2f} s; replayed {repeated.steps} steps, "
                f"weights {'equal' if equal else 'DIFFER'}",
                flush=True,
            )
    print(f"{same} of {runs} replays are bitwise equal")
    return int(same < runs)


if __name__ == "__main__":
    sys.exit(main())
