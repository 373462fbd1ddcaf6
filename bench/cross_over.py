"""Where demonstrations cross over to rewards: held-out accuracy as the share of the seconds that each stage of the quickstart gets is moved.

    python bench/cross_over.py [--shares 0.05,0.25,0.45,0.65,0.85,1] [--seeds 3] [--budget 150s] [--store runs/cross-over.jsonl]

The share is that of supervised learning on the same scarce demonstrations; the rest goes to rewards on fresh problems, and at 1 there is no such stage.
All runs have the same budget. Every run is a line of the store, so that a study that was stopped goes on where it was. The interval is Student's
over seeds; differences are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from quickstart import interval

import outlay
from outlay.train.reading import find_recipe


def recipe(share: float, seed: int, budget: str) -> outlay.Recipe:
    """Return the quickstart with this share of its seconds for demonstrations."""
    plain = yaml.safe_load(find_recipe("quickstart").read_text(encoding="utf-8"))
    first, second = plain["stages"]
    labels = plain["budget"].partition(",")[2]
    first["share"], second["share"] = share, 1 - share
    stages = [first, second] if share < 1 else [first]
    return outlay.load_recipe(plain | {"seed": seed, "stages": stages, "budget": f"{budget},{labels}"})


def spend(share: float, seed: int, budget: str) -> dict[str, Any]:
    """Run it and return what the store keeps."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "run")
        result = outlay.run(recipe(share, seed, budget), folder)
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    seen = [(line["stage"], line["progress"], line["metrics"]) for line in lines if line["kind"] == "evaluation"]
    before = [metrics for stage, _, metrics in seen if stage == "demonstrations"]
    return {
        "share": share, "seed": seed, "budget": budget, "metrics": result.metrics, "steps": {s["name"]: s["steps"] for s in result.stages},
        "halfway": before[-1] if before else {}, "seconds": result.spent["seconds"], "rollouts": result.spent.get("rollouts", 0.0),
    }  # fmt: skip


def table(rows: list[dict[str, Any]], shares: list[float], seeds: int) -> str:
    """Return the accuracies by share, and each share's difference from supervised learning alone."""
    found = {(row["share"], row["seed"]): row for row in rows}
    names = sorted(next(iter(found.values()))["metrics"], key=lambda name: (name.count("/"), name))
    titles = [name.removeprefix("exact_match").strip("/") or "mean" for name in names]
    out = [f"| share of demonstrations | seeds | updates | {' | '.join(titles)} | against 1 |", "|---" * (len(names) + 4) + "|"]
    for share in shares:
        mine = [found[share, seed] for seed in range(seeds) if (share, seed) in found]
        if not mine:
            continue
        stages = list(mine[0]["steps"])
        steps = " + ".join(f"{statistics.fmean(row['steps'][stage] for row in mine):.0f}" for stage in stages)
        pairs = [(row, found[1.0, row["seed"]]) for row in mine if (1.0, row["seed"]) in found]
        gains = [row["metrics"]["exact_match"] - alone["metrics"]["exact_match"] for row, alone in pairs]
        cells = [interval([row["metrics"][name] for row in mine]) for name in names]
        out.append(f"| {share:g} | {len(mine)} | {steps} | {' | '.join(cells)} | {interval(gains) if share < 1 and gains else ''} |")
    best = max(
        shares, key=lambda share: statistics.fmean([found[key]["metrics"]["exact_match"] for key in found if key[0] == share] or [0.0])
    )
    return "\n".join([*out, "", f"best share: {best:g}"])


def main() -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shares", default="0.05,0.25,0.45,0.65,0.85,1")
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 11))
    parser.add_argument("--budget", default="150s")
    parser.add_argument("--store", type=Path, default=Path("runs/cross-over.jsonl"))
    asked = parser.parse_args()
    shares = [float(share) for share in asked.shares.split(",")]
    asked.store.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in asked.store.read_text().splitlines()] if asked.store.exists() else []
    done = {(row["share"], row["seed"], row["budget"]) for row in rows}
    for seed in range(asked.seeds):
        for share in shares:
            if (share, seed, asked.budget) not in done:
                rows.append(spend(share, seed, asked.budget))
                with asked.store.open("a") as store:
                    store.write(json.dumps(rows[-1]) + "\n")
                print(f"share {share:g}, seed {seed}: {rows[-1]['metrics']['exact_match']:.3f}, {rows[-1]['steps']}", flush=True)
    print(table([row for row in rows if row["budget"] == asked.budget], shares, asked.seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
