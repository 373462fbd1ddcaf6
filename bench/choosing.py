"""What choosing costs: every teacher, allocator and estimator at 256 questions of 8 answers, as a share of the step that it serves.

    python bench/choosing.py [--steps 12] [--hidden 80]

Each method of bench/teaching.py spends the same steps of 2048 rollouts with a small model on one thread. The processor time inside choosing, dividing,
learning and reporting shares is measured in the run itself, passes of the model that a method needs apart, and set beside that of the whole step. The
smaller the model, the larger the share: one of 0.3 M parameters is as hard as it gets.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import teaching

import outlay
from outlay.sources import choosing
from outlay.sources.choosing import Choosing
from outlay.train import loop

BAR = 0.02
QUESTIONS = 256
#: single questions that a pool's teacher chooses among
POOL = 4096


class Watch:
    """Adds up processor time spent in methods, by name; time inside of other watched ones is not theirs."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inside: list[float] = []

    def on(self, owner: Any, method: str, name: str) -> None:
        """Watch ``owner.method`` under ``name``."""
        real: Callable[..., Any] = getattr(owner, method)

        def watched(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            self._inside.append(0.0)
            try:
                return real(*arguments, **named)
            finally:
                took = time.process_time() - began
                self.spent[name] = self.spent.get(name, 0.0) + took - self._inside.pop()
                if self._inside:
                    self._inside[-1] += took

        setattr(owner, method, watched)

    def take(self) -> dict[str, float]:
        """Return what was spent since the last time."""
        spent, self.spent = self.spent, {}
        return spent


def recipe(name: str, steps: int, hidden: int) -> outlay.Recipe:
    """Return the run of a method: so many steps of 2048 rollouts, of a model of this width."""
    plain = teaching.Job("measure", name, "grpo", 3e-4, 1, 0, 1).recipe("")
    plain |= {"budget": f"{steps} steps", "model": {"transformer": {**teaching.MODEL, "hidden": hidden}}, "evaluate": {"start": False}}
    rollouts = plain["stages"][0]["source"]["rollouts"]
    if "pool" in rollouts["prompts"]:
        rollouts["prompts"]["pool"]["size"] = POOL
    plain["stages"][0]["batch_size"] = QUESTIONS * teaching.SAMPLES
    return outlay.load_recipe(plain)


def measure(name: str, steps: int, hidden: int, watch: Watch, ends: list[float]) -> tuple[float, float, float]:
    """Return the median processor seconds of a step, of choosing in it, and of the model's passes for it; the first three steps are left out."""
    ends.clear()
    watch.take()
    with tempfile.TemporaryDirectory() as folder:
        outlay.run(recipe(name, steps, hidden), Path(folder) / "run")
    rows, whole = PER_STEP[-steps:], [b - a for a, b in itertools.pairwise(ends)]
    chose = statistics.fmean(row.get("choose", 0.0) for row in rows[3:])  # some learn every few steps: the mean, not the median
    looked = statistics.fmean(row.get("model", 0.0) for row in rows[3:])
    return statistics.median(whole[2:]), chose, looked


PER_STEP: list[dict[str, float]] = []


def main() -> int:
    """Measure every method and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=80, help="width of the model; 80 are 0.3 M parameters")
    parser.add_argument("--methods", nargs="*", default=None)
    asked = parser.parse_args()
    watch, ends = Watch(), list[float]()
    for method in ("choose", "counts", "learn", "shares", "use"):
        watch.on(Choosing, method, "choose")
    for function in ("prompt_features", "concentrations"):
        watch.on(choosing, function, "model")
    watch.on(sys.modules["outlay.sources.workshop"], "gradient_norms", "model")
    real = loop.finish_step

    def finished(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        ends.append(time.process_time())
        PER_STEP.append(watch.take())
        return found

    loop.finish_step = finished  # type: ignore[assignment]
    above = []
    print(f"{'method':28} {'step':>9} {'choosing':>10} {'share':>8} {'passes of the model':>20}")
    for name in asked.methods or teaching.METHODS:
        if teaching.METHODS[name].kind == "repair":
            continue
        step, chose, looked = measure(name, asked.steps, asked.hidden, watch, ends)
        share = chose / step
        above += [name] if share >= BAR else []
        print(f"{name:28} {step * 1e3:6.0f} ms {chose * 1e3:7.2f} ms {share:8.2%} {looked / step:20.2%}", flush=True)
    print(f"below {BAR:.0%} of a step of {QUESTIONS} questions: all but {', '.join(above)}" if above else f"all below {BAR:.0%}")
    return int(bool(above))


if __name__ == "__main__":
    sys.exit(main())
