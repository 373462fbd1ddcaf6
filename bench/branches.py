"""Three budgets from one run: a trunk with annealed branches, WSD-S and cyclic cosine, against a cosine run for each budget.

    python bench/branches.py [--seeds 5] [--store runs/bench]

The budgets are a quarter, a half and the whole of T steps of a character language model. Every method's peak is searched by the same five tries with a
seed of its own, by the mean loss over the three budgets on held-out examples that are not reported. The steps are all that a method takes to have
its three checkpoints: T for WSD-S and cyclic cosine, T (1 + 0.1 (1/4 + 1/2)) for the branches, T (1/4 + 1/2 + 1) for a run each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import outlay
from outlay.bench import Method, Search, Store, load_workload
from outlay.bench.jobs import Job
from outlay.bench.running import execute
from outlay.bench.statistics import mean_interval
from outlay.budget import Budget
from outlay.controllers import AnnealedBranches
from outlay.schedules import Cosine, CyclicCosine, Schedule, WsdS
from outlay.train import load_recipe

SHARES = (0.25, 0.5, 1.0)
WORKLOAD = load_workload("code-characters-adam")
STEPS = WORKLOAD.full.limits["steps"]


def points(share: float) -> tuple[float, ...]:
    """The budget points up to ``share``, as shares of it: a run that ends there has seen what the whole run has seen by then."""
    return tuple(point / share for point in SHARES if point <= share)


def cosine(share: float) -> Schedule:
    return Cosine(floor=0.1)


def wsd_s(share: float) -> Schedule:
    return WsdS(at=points(share))


def cyclic_cosine(share: float) -> Schedule:
    return CyclicCosine(at=points(share), floor=0.1)


def separate(schedule: object, peak: float, seed: int, store: Store) -> dict[float, dict[str, float]]:
    """Return the metrics at each budget from a run that ends there."""
    found = {}
    for share in SHARES:
        job = Job(WORKLOAD, Method(schedule(share)), share, peak, seed)  # type: ignore[operator]
        if job.key not in store:
            store.add(execute(job))
        found[share] = store[job.key]["metrics"]
    return found


def branched(peak: float, seed: int, store: Store) -> dict[float, dict[str, float]]:
    """Return the metrics of the two branches and of the end of one real run, and keep them in the store."""
    asked = AnnealedBranches(at=SHARES[:-1], shape="linear", floor=0.1, save=False)
    budget = Budget({"steps": round(STEPS * (1 + asked.decay * sum(asked.at)))})
    job = dataclasses.replace(Job(WORKLOAD, Method(asked), 1.0, peak, seed), workload=dataclasses.replace(WORKLOAD, full=budget))
    if job.key not in store:
        with tempfile.TemporaryDirectory() as folder:
            result = outlay.run(load_recipe(job.recipe()), Path(folder) / "run")
            lines = [json.loads(line) for line in (Path(folder) / "run" / "journal.jsonl").read_text().splitlines()]
        ends = [line["metrics"] for line in lines if line["kind"] == "branch" and line["what"] == "landed"]
        store.add({"key": job.key, "ends": [*ends, result.metrics], "steps": result.steps})
    return dict(zip(SHARES, store[job.key]["ends"], strict=True))


METHODS = {
    "a cosine run for each": (lambda peak, seed, store: separate(cosine, peak, seed, store), sum(SHARES)),
    "annealed branches (WSD)": (branched, 1 + 0.1 * sum(SHARES[:-1])),
    "WSD-S": (lambda peak, seed, store: separate(wsd_s, peak, seed, store), 1.0),
    "cyclic cosine": (lambda peak, seed, store: separate(cyclic_cosine, peak, seed, store), 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--store", type=Path, default=Path("runs/bench"))
    asked = parser.parse_args()
    store, search = Store(asked.store), Search()
    losses: dict[str, list[dict[float, float]]] = {}
    print(f"{'method':26}{'steps':>8}{'peak':>9}" + "".join(f"{share:>10.0%}" for share in SHARES))
    for name, (run, cost) in METHODS.items():
        tries = {peak: run(peak, search.seed, store) for peak in search.peaks(*WORKLOAD.peaks, search.tries)}
        peak = min(tries, key=lambda peak: sum(tries[peak][share]["tune/loss"] for share in SHARES))
        found = [run(peak, seed, store) for seed in range(asked.seeds)]
        losses[name] = [{share: one[share]["test/loss"] for share in SHARES} for one in found]
        means = [mean_interval([one[share] for one in losses[name]]).mean for share in SHARES]
        print(f"{name:26}{cost * STEPS:8.0f}{peak:9.4g}" + "".join(f"{mean:10.4f}" for mean in means))
    first = next(iter(METHODS))
    for name in list(METHODS)[1:]:
        for share in SHARES:
            pairs = zip(losses[name], losses[first], strict=True)
            print(f"{name} - {first}, {share:.0%}: {mean_interval([mine[share] - other[share] for mine, other in pairs])}")


if __name__ == "__main__":
    main()
