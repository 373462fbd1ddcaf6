"""Teachers, allocators and repairs on real rollouts, at equal generated rollouts: who reaches more, and who reaches it sooner?

    python bench/teaching.py [--store runs/teaching] [--out docs/results/teaching.md]

One mixture of reasoning tasks and levels; from the same supervised starts every method goes on with the same number of generated rollouts,
greedy baselines, probes, hints and thrown-away groups counted. The loss is divided by a constant and by the answers of the update, which are the same
for everyone but ``drop`` and ``refill``: these take larger steps for each answer that they keep. Learning rates: the same grid for
everyone, on a start of a seed that is not measured, at half of the rollouts.
Every run is a line of the store, so that a bench that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import outlay
from outlay.bench import Store
from outlay.bench.running import one_thread_each, workers
from outlay.bench.statistics import Interval, mean_interval
from outlay.errors import InputError, nearest
from outlay.train.journal import read_journal

#: part of every run's name; raised when runs are no longer what they were
EDITION = 1
TASKS = {"gcd": [1, 2, 3], "reverse": [2, 3, 4], "sum": [1, 2, 3], "bits": [1, 2, 3], "count": [1, 2, 3], "product": [1, 2, 3]}
START_STEPS, DEMONSTRATIONS = 1200, 3600
#: the seed on whose start rates are searched, and the share of the rollouts that a try is given
TUNE_SEED, TUNE_SHARE = 1000, 0.5
SAMPLES, BATCH, POOL, POINTS = 8, 128, 256, 6
MODEL = {"architecture": "llama", "hidden": 80, "layers": 3, "heads": 4, "context": 96, "tokenizer": "characters"}
ENGINE = {"local": {"slots": 128}}
METRIC = "sampled_match"
#: one estimator, two advantages, and a divisor that never changes
OBJECTIVES: dict[str, dict[str, Any]] = {
    "grpo": {"policy_gradient": {"advantage": "group", "aggregate": "constant"}},
    "remax": {"policy_gradient": {"advantage": "greedy", "denominator": "current", "stabiliser": "none", "aggregate": "constant"}},
}


@dataclass(frozen=True)
class Method:
    """What is compared.

    Args:
        kind: ``teacher``, ``pool teacher``, ``allocator`` or ``repair``; it is compared with the uniform one of its prompts.
        fields: of the rollouts.
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pool(self) -> bool:
        """Whether single questions of a pool are the arms, not tasks and levels."""
        return self.kind == "pool teacher"

    @property
    def baseline(self) -> str:
        """Return the name of the uniform method it is compared with."""
        return "uniform (pool)" if self.pool else "uniform"


BETA = {"beta": {"decay": 0.9}}
#: task and level of each arm as numbers
PROTOTYPES = [[*(float(task == other) for other in TASKS), level / 4] for task, levels in TASKS.items() for level in levels]
METHODS: dict[str, Method] = {
    "uniform": Method("teacher", {"teacher": "uniform"}),
    "sec": Method("teacher", {"teacher": {"sec": {"tau": 0.2}}}),
    "dump": Method("teacher", {"teacher": "dump"}),
    "cures": Method("teacher", {"teacher": "cures", "estimator": BETA}),
    "pcl": Method("teacher", {"teacher": "pcl", "estimator": {"value_network": {"reads": "text"}}}),
    "easy_to_hard": Method("teacher", {"teacher": {"easy_to_hard": {"until": 0.7}}}),
    "hard_to_easy": Method("teacher", {"teacher": {"easy_to_hard": {"until": 0.7, "reverse": True}}}),
    "ranking": Method("teacher", {"teacher": "ranking"}),
    "alp_gmm": Method("teacher", {"teacher": {"alp_gmm": {"fit_every": 128}}}),
    "covar_gmm": Method("teacher", {"teacher": {"covar_gmm": {"fit_every": 128}}}),
    "riac": Method("teacher", {"teacher": "riac"}),
    "missing_skills": Method("teacher", {"teacher": {"missing_skills": {"mastered": 0.1}}, "watch": METRIC}),
    "mbtl": Method("teacher", {"teacher": {"mbtl": {"pieces": POINTS}}, "watch": METRIC}),
    "class_order": Method("teacher", {"teacher": {"class_order": {"prototypes": PROTOTYPES}}}),
    "reverse_starts": Method("teacher", {"teacher": {"reverse_starts": {"threshold": 0.5}}}),
    "uniform (pool)": Method("pool teacher", {"teacher": "uniform"}),
    "cures (pool)": Method("pool teacher", {"teacher": "cures", "estimator": BETA}),
    "gain": Method("pool teacher", {"teacher": {"gain": {"step": 10.0, "sigma": 64.0, "most": 32.0}}}),
    "cyclical": Method("pool teacher", {"teacher": "cyclical"}),
    "lim": Method("pool teacher", {"teacher": {"lim": {"top": 64}}}),
    "historical_variance": Method("pool teacher", {"teacher": {"historical_variance": {"top": 64}}}),
    "neyman": Method("allocator", {"allocator": "neyman"}),
    "knapsack": Method("allocator", {"allocator": "knapsack"}),
    "knapsack, in-context rates": Method("allocator", {"allocator": "knapsack", "estimator": "in_context"}),
    "gvm": Method("allocator", {"allocator": {"gvm": {"probe": 4}}}),
    "cures allocation": Method("allocator", {"allocator": "cures", "estimator": BETA}),
    "dart_uniform": Method("allocator", {"allocator": "dart_uniform"}),
    "dart_prop_to_difficulty": Method("allocator", {"allocator": "dart_prop_to_difficulty"}),
    "sec + knapsack": Method("allocator", {"teacher": {"sec": {"tau": 0.2}}, "allocator": "knapsack"}),
    "drop": Method("repair", {"teacher": "uniform", "repair": "drop"}),
    "refill": Method("repair", {"teacher": "uniform", "repair": "refill"}),
    "balanced filter": Method("repair", {"teacher": "uniform", "repair": {"refill": {"low": 0.2, "high": 0.8}}}),
    "replay": Method("repair", {"teacher": "uniform", "repair": "replay"}),
    "easier": Method("repair", {"teacher": "uniform", "repair": "easier"}),
    "sec + replay": Method("repair", {"teacher": {"sec": {"tau": 0.2}}, "repair": "replay"}),
}
#: methods of the catalog that have no place here, and why
ELSEWHERE = {
    "teachers/floor": "wraps another teacher",
    "teachers/skill_it": "needs a graph of skills; see the mixture of domains",
    "teachers/mixing_agent": "needs an agent trained on trajectories; see the mixture of domains",
    "teachers/snapshot_starts": "chooses among saved states of a simulator",
    "teachers/sub_instructions": "chooses among numbers of sub-instructions",
    "teachers/random_point": "the baseline of task spaces: uniform here",
    "allocators/proportional": "is uniform without sizes",
    "allocators/group_collection": "divides money over groups of data",
    "repairs/scaffold": "needs hints in words that the model reads",
    "repairs/hint_prefix": "needs hints in words that the model reads",
    "repairs/guide": "needs hints in words that the model reads",
    "repairs/tree": "needs answers of several steps",
    "repairs/expert_failures": "needs failed solutions of an expert",
}


@dataclass(frozen=True)
class Job:
    """One run: ``start``, ``tune`` or ``measure``, of a method with an objective at a rate, from the start of a seed, for so many rollouts."""

    kind: str
    method: str
    objective: str
    lr: float
    seed: int
    rollouts: int
    problems: int

    @property
    def start(self) -> Job:
        """Return the job that makes the model which this one goes on from."""
        return Job("start", "start", "next_token", 3e-3, self.seed, 0, self.problems)

    def recipe(self, model: str) -> dict[str, Any]:
        """Return the run as plain values; ``model`` is the folder of the start's."""
        exam = {METRIC: {"tasks": TASKS, "problems": self.problems, "samples": 4, "engine": ENGINE}}
        stage: dict[str, Any] = {"optimizer": "adamw"}
        if self.kind == "start":
            schedule = {"warmup": {"fraction": 0.05, "then": "linear"}}
            stage |= {"batch_size": 64, "source": {"reasoning": {"tasks": TASKS, "examples": DEMONSTRATIONS, "longest": 90}}}
            stage |= {"objective": self.objective, "knobs": {"lr": {"peak": self.lr, "schedule": schedule}, "clip": 1.0}}
            return self._whole(f"{START_STEPS} steps", {"transformer": dict(MODEL)}, stage, {"start": False, "exams": [exam]})
        method, asked = METHODS[self.method], {"reasoning": {"tasks": TASKS}}
        prompts = {"pool": {"of": asked, "size": POOL}} if method.pool else asked
        rollouts = {
            "prompts": prompts, "rewards": {"right": "exact"}, "samples": SAMPLES, "new_tokens": 12, "engine": ENGINE, **method.fields,
        }  # fmt: skip
        stage |= {"batch_size": BATCH, "source": {"rollouts": rollouts}, "objective": OBJECTIVES[self.objective]}
        stage["knobs"] = {"lr": {"peak": self.lr, "schedule": "linear"}, "clip": 1.0}
        evaluate = {"start": False, "exams": [exam], "every": 1 / POINTS}
        return self._whole(f"{self.rollouts} rollouts", {"pretrained": {"path": model}}, stage, evaluate)

    def _whole(self, budget: str, model: Any, stage: Any, evaluate: Any) -> dict[str, Any]:
        told = {"name": "teaching", "budget": budget, "seed": self.seed, "threads": 1}
        return told | {"model": model, "stages": [stage], "evaluate": evaluate}

    @cached_property
    def key(self) -> str:
        """Return the name of the run: whatever decides its outcome goes into it."""
        before = "" if self.kind == "start" else self.start.key
        digest = hashlib.blake2b(json.dumps([EDITION, before, self.recipe("")], sort_keys=True).encode(), digest_size=8).hexdigest()
        return f"{self.kind} {self.method} {self.objective} {self.lr:g} {self.seed} {digest}"

    def model(self, store: Path) -> Path:
        """Return where the start's model lies."""
        return store.absolute() / "starts" / self.start.key.rpartition(" ")[2]


def execute(job: Job, store: Path) -> dict[str, Any]:
    """Spend a job's budget and return what it came to; a failure is an outcome."""
    worked = time.process_time()
    folder = Path(tempfile.mkdtemp(prefix="outlay-bench-"))
    row: dict[str, Any] = {"key": job.key, "metrics": {}, "spent": {}, "accounts": {}, "steps": 0, "curve": [], "outcome": "ok", "why": ""}
    try:
        result = outlay.run(outlay.load_recipe(job.recipe(str(job.model(store)))), folder / "run")
        if result.ended_by == "signal":
            raise KeyboardInterrupt
        lines = read_journal(folder / "run")
        seen = [line["seen"] for line in lines if line["kind"] == "rollout"]
        row |= {"metrics": result.metrics, "spent": result.spent, "accounts": result.accounts, "steps": result.steps}
        row["curve"] = [(line["progress"], line["metrics"][METRIC]) for line in lines if line["kind"] == "evaluation"]
        row["varied"] = statistics.fmean(one["varied"] for one in seen) if seen else 0.0
        if not math.isfinite(result.metrics[METRIC]):
            row |= {"outcome": "error", "why": f"the run ended with {result.metrics[METRIC]}"}
        if job.kind == "start":
            aside = job.model(store).with_suffix(f".{os.getpid()}")
            shutil.copytree(folder / "run" / "model", aside)
            shutil.rmtree(job.model(store), ignore_errors=True)
            aside.rename(job.model(store))
    except Exception as error:  # one run that fails says nothing about the others
        row |= {"outcome": "error", "why": f"{type(error).__name__}: {error}"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return row | {"cpu": time.process_time() - worked}


@dataclass(frozen=True)
class Study:
    """What is compared, and the store of what has been run."""

    store: Store
    methods: tuple[str, ...]
    objectives: tuple[str, ...]
    seeds: int
    rollouts: int
    rates: tuple[float, ...]
    problems: int
    _known: dict[Job, Job] = field(default_factory=dict)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Objective and method of everything that is compared: teachers under each objective, the others under the first."""
        return [
            (objective, name)
            for objective in self.objectives
            for name in self.methods
            if objective == self.objectives[0] or METHODS[name].kind in ("teacher", "pool teacher")
        ]

    def job(self, kind: str, method: str, objective: str, lr: float, seed: int, rollouts: int) -> Job:
        """Return the one job that is described so; its name is worked out once."""
        job = Job(kind, method, objective, lr, seed, rollouts, self.problems)
        return self._known.setdefault(job, job)

    def start(self, seed: int) -> Job:
        """Return the job that teaches a start."""
        return self.job("start", "start", "next_token", 3e-3, seed, 0)

    def tries(self, objective: str, method: str) -> list[Job]:
        """Return the search for a method's rate."""
        return [self.job("tune", method, objective, lr, TUNE_SEED, round(self.rollouts * TUNE_SHARE)) for lr in self.rates]

    def measured(self, objective: str, method: str) -> list[Job]:
        """Return a method's runs at the rate that was found; none while it is not known."""
        lr = self.rate(objective, method)
        return (
            [self.job("measure", method, objective, lr, seed, self.rollouts) for seed in range(1, self.seeds + 1)] if lr is not None else []
        )

    def rate(self, objective: str, method: str) -> float | None:
        """Return the rate with the best area under the curve; None while tries are missing. Among equals the smallest."""
        jobs = self.tries(objective, method)
        return max(jobs, key=self.area).lr if all(job.key in self.store for job in jobs) else None

    def curve(self, job: Job) -> list[tuple[float, float]]:
        """Return (share of the rollouts spent, held-out success), from the start's on; a failed run stays at 0."""
        row = self.store[job.key]
        if row["outcome"] != "ok":
            return [(0.0, 0.0), (1.0, 0.0)]
        inside = [(share, value) for share, value in row["curve"][:-1] if 0 < share < 1]
        return [(0.0, self.store[job.start.key]["metrics"][METRIC]), *inside, (1.0, row["metrics"][METRIC])]

    def area(self, job: Job) -> float:
        """Return the area under the curve: the mean success while the rollouts were spent."""
        curve = self.curve(job)
        return math.fsum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(curve))

    def missing(self) -> Iterator[Job]:
        """Yield every job that can be run now, starts first."""
        for seed in (TUNE_SEED, *range(1, self.seeds + 1)):
            job = self.start(seed)
            if job.key not in self.store or not job.model(self.store.folder).is_dir():
                yield job
        for objective, method in self.pairs:
            for job in [*self.tries(objective, method), *self.measured(objective, method)]:
                if job.key not in self.store and job.start.key in self.store and job.model(self.store.folder).is_dir():
                    yield job

    def complete(self, objective: str, method: str) -> list[Job]:
        """Return a method's measured runs once all of them are there."""
        jobs = self.measured(objective, method)
        return jobs if jobs and all(job.key in self.store for job in jobs) else []


def spend(study: Study, processes: int) -> None:
    """Run what is missing, ``processes`` at a time."""
    for objective, method in study.pairs:  # wrong recipes cost nothing
        outlay.load_recipe(study.tries(objective, method)[0].recipe("start"))
    running: dict[Future[dict[str, Any]], Job] = {}
    done, whole = 0, len(study.pairs) * (len(study.rates) + study.seeds) + study.seeds + 1
    with one_thread_each(), workers(processes) as pool:
        while True:
            for job in study.missing():
                if len(running) >= processes:
                    break
                if job not in running.values():
                    running[pool.submit(execute, job, study.store.folder)] = job
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job, row = running.pop(future), future.result()
                study.store.add(row)
                done += 1
                told = f"{row['metrics'].get(METRIC, float('nan')):.3f}" if row["outcome"] == "ok" else row["why"]
                print(f"[{done} of {whole} at most] {job.key}: {told} ({row['cpu']:.0f} s)", file=sys.stderr, flush=True)


def reached(study: Study, job: Job, level: float) -> float:
    """Return the share of the rollouts after which a run's curve first comes to a level; inf when it does not."""
    curve = study.curve(job)
    for (at, low), (to, high) in itertools.pairwise(curve):
        if low >= level:
            return at
        if high >= level:
            return at + (to - at) * (level - low) / (high - low)
    return math.inf


def differences(study: Study, objective: str, method: str, of: str) -> Interval | None:
    """Return the paired difference between a method and the uniform one of its prompts: of ``final`` success or of the ``area``."""
    mine, base = study.complete(objective, method), study.complete(objective, METHODS[method].baseline)
    if not mine or not base or len(mine) < 2:
        return None
    value = study.area if of == "area" else lambda job: study.curve(job)[-1][1]
    return mean_interval([value(job) - value(other) for job, other in zip(mine, base, strict=True)])


def report(study: Study, command: str) -> str:
    """Return everything that has been found so far as Markdown."""
    parts = ["# Teachers, allocators and repairs at equal rollouts\n", _about(study, command), _short(study)]
    for objective in study.objectives:
        rows = [_row(study, objective, name) for o, name in study.pairs if o == objective and study.complete(o, name)]
        if rows:
            rows.sort(key=lambda row: -row[0])
            parts.append(
                f"## {objective}\n\n| method | kind | area | final | area - uniform | final - uniform | uniform's final after | groups that vary "
                "| rate | verdict |\n|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(text for _, text in rows) + "\n"
            )
    failed = [study.store[job.key] for o, m in study.pairs for job in [*study.tries(o, m), *study.measured(o, m)]
              if job.key in study.store and study.store[job.key]["outcome"] != "ok"]  # fmt: skip
    if failed:
        parts.append("## Runs that failed\n\nThey count as 0.\n\n" + "\n".join(f"- {row['key']}: {row['why']}" for row in failed) + "\n")
    parts.append("## Not here\n\n" + "\n".join(f"- `{name}`: {why}" for name, why in ELSEWHERE.items()) + "\n")
    return "\n".join(parts)


def _short(study: Study) -> str:
    lines = ["## In short\n"]
    for objective in study.objectives:
        gaps = {
            name: differences(study, objective, name, "area")
            for o, name in study.pairs
            if o == objective and METHODS[name].baseline != name
        }
        told: dict[str, list[str]] = {"**better**": [], "undecided": [], "**worse**": []}
        for name, gap in gaps.items():
            if gap is not None:
                told[_verdict(gap)].append(name)
        counts = [f"{len(names)} {verdict.strip('*')}" for verdict, names in told.items()]
        worse = f" Worse: {'; '.join(told['**worse**'])}." if told["**worse**"] else ""
        better = f" Better: {'; '.join(told['**better**'])}." if told["**better**"] else ""
        lines.append(f"- {objective}, area against uniform: {', '.join(counts)}.{better}{worse}")
        soon = []
        for name in gaps:
            jobs, base = study.complete(objective, name), study.complete(objective, METHODS[name].baseline)
            shares = [reached(study, job, study.curve(other)[-1][1]) for job, other in zip(jobs, base, strict=False)]
            if shares and statistics.median(shares) <= 0.5:
                soon.append(f"{name} ({statistics.median(shares):.2f}, {sum(map(math.isfinite, shares))} of {len(shares)} seeds)")
        lines.append(f"- {objective}, uniform's final success in half of the rollouts or less (median): {'; '.join(soon) or 'none'}.")
    return "\n".join(lines) + "\n"


def _row(study: Study, objective: str, method: str) -> tuple[float, str]:
    jobs, base = study.complete(objective, method), study.complete(objective, METHODS[method].baseline)
    area, final = statistics.fmean(map(study.area, jobs)), statistics.fmean(study.curve(job)[-1][1] for job in jobs)
    gaps = {of: differences(study, objective, method, of) for of in ("area", "final")}
    is_base = method == METHODS[method].baseline
    cells = ["" if gap is None or is_base else f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]" for gap in gaps.values()]
    verdict = "" if is_base or gaps["area"] is None else _verdict(gaps["area"])
    shares = [reached(study, job, study.curve(other)[-1][1]) for job, other in zip(jobs, base, strict=False)]
    inside = sum(math.isfinite(share) for share in shares)
    soon = "" if is_base or not shares else f"{statistics.median(shares):.2f} ({inside} of {len(shares)})".replace("inf", "never")
    varied = statistics.fmean(study.store[job.key].get("varied", 0.0) for job in jobs)
    lr = study.rate(objective, method)
    shown = [method, METHODS[method].kind, f"{area:.4f}", f"{final:.4f}", *cells, soon, f"{varied:.2f}", f"{lr:g}", verdict]
    return area, "| " + " | ".join(shown) + " |"


def _verdict(gap: Interval) -> str:
    return "**better**" if gap.low > 0 else "**worse**" if gap.high < 0 else "undecided"


def _about(study: Study, command: str) -> str:
    jobs = [job for o, m in study.pairs for job in [*study.tries(o, m), *study.measured(o, m)] if job.key in study.store]
    starts = [study.start(seed) for seed in (TUNE_SEED, *range(1, study.seeds + 1))]
    hours = math.fsum(study.store[job.key]["cpu"] for job in [*jobs, *starts] if job.key in study.store) / 3600
    taught = [study.store[job.key]["metrics"][METRIC] for job in starts[1:] if job.key in study.store]
    began = f"{statistics.fmean(taught):.4f}" if taught else "unknown"
    complete = sum(bool(study.complete(o, m)) for o, m in study.pairs)
    mixture = "; ".join(f"{task} {', '.join(map(str, levels))}" for task, levels in TASKS.items())
    cells = sum(map(len, TASKS.values()))
    return f"""Does choosing what is asked, dividing answers among questions, or mending groups without a signal reach more with the same number of
generated answers? {complete} of {len(study.pairs)} combinations so far, {hours:.2f} hours of processor time. Everything here is printed by

```bash
{command}
```

- **Mixture.** {len(TASKS)} tasks of reasoning-gym at three levels each: {mixture}.
  A teacher's arms are these {cells} cells, of endless questions; a pool teacher's are {POOL} single questions, asked again and again.
- **Starts.** A character-level Llama of {MODEL["layers"]} layers of {MODEL["hidden"]},
  taught for {START_STEPS} steps of 64 on up to {DEMONSTRATIONS} demonstrations a cell; one for every seed, the same for all methods.
  Mean held-out success of the starts: {began}.
- **Budget.** {study.rollouts:,} generated rollouts, of which greedy baselines, probes and groups thrown away are part;
  {SAMPLES} answers to a question on average, {BATCH} an update, AdamW, rate linear to zero.
  The loss is divided by a constant and by the answers of the update, which are as many for everyone
  but `drop` and the two refills: these take larger steps for what they keep.
- **Rates.** {", ".join(f"{rate:g}" for rate in study.rates)}, each tried by every method with {TUNE_SHARE:.0%} of the rollouts
  on a start of its own; the best area decides.
- **Measured.** Mean held-out success of 4 sampled answers on {study.problems} problems a cell (fewer where there are not so many),
  all cells alike, at {POINTS} points.
  *Area* is the mean of that curve over the rollouts; *uniform's final after* the share of the rollouts after which the curve reaches what
  uniform ends with on the same seed, the median, and on how many seeds it does.
- **Intervals**, 95 %: Student's t over {study.seeds} seeds, paired with uniform on the same start. The verdict is that of the area.
"""


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(";" if ";" in text else ",") if part.strip()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", type=_listed, default=list(METHODS), help="names, between semicolons where they hold commas")
    parser.add_argument("--objectives", type=_listed, default=list(OBJECTIVES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rollouts", type=int, default=128 * BATCH, help="budget of every run after its start")
    parser.add_argument("--rates", type=lambda text: [float(part) for part in _listed(text)], default=[1e-4, 2e-4, 4e-4])
    parser.add_argument("--problems", type=int, default=60, help="held-out problems a cell at most")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--store", type=Path, default=Path("runs/teaching"))
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    parser.add_argument("--show", action="store_true", help="run nothing, print what the store holds")
    parser.add_argument("--out", type=Path, help="write the tables there as well")
    asked = parser.parse_args(arguments)
    try:
        for name, known in [(name, METHODS) for name in asked.methods] + [(name, OBJECTIVES) for name in asked.objectives]:
            if name not in known:
                raise InputError(f"there is no {name!r}{nearest(name, known)}; accepted: {'; '.join(known)}")
    except InputError as error:
        parser.error(str(error))
    methods = tuple(dict.fromkeys([*(METHODS[name].baseline for name in asked.methods), *asked.methods]))
    store = Store(asked.store, retry=asked.retry)
    study = Study(store, methods, tuple(asked.objectives), asked.seeds, asked.rollouts, tuple(sorted(asked.rates)), asked.problems)
    if not asked.show:
        spend(study, asked.workers)
    words = list(sys.argv[1:] if arguments is None else arguments)
    text = report(study, " ".join(["python bench/teaching.py", *words]))
    print(text)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
