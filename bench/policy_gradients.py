"""Every policy-gradient method of the catalog from the same supervised starts, at equal rollouts: does it improve answers to held-out problems?

    python bench/policy_gradients.py [--store runs/policy-gradients] [--out docs/results/policy-gradients.md]

A start is a small transformer taught on a few hundred demonstrations of one reasoning task until it answers about half of the held-out problems.
From the start of a setting and seed, every method goes on with the same number of rollouts on fresh prompts, all they generate counted:
greedy baselines, and groups that are thrown away. More supervised steps on the same demonstrations go on from it as well.

Learning rates: every method is given the same grid, on the same starts of a seed that is not measured, at the same share of the rollouts; the rate
with the best sampled accuracy is the method's on that setting. Every run is a line of the store, so that a bench that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
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
from outlay.bench.statistics import Interval, average_ranks, mean_interval, ranks
from outlay.catalog import methods_of
from outlay.errors import InputError, nearest

#: part of every run's name; raised when runs are no longer what they were
EDITION = 1
#: the seed on whose starts rates are searched, and the share of the rollouts that a try is given
TUNE_SEED, TUNE_SHARE = 1000, 0.5
#: answers to a question, answers an update
SAMPLES, BATCH = 8, 256
#: supervised steps that the baseline is given for each update of the others: about the same seconds
SFT_TIMES = 2
START, SFT = "start", "more_sft"
MODEL = {"architecture": "llama", "hidden": 80, "layers": 3, "heads": 4, "context": 48, "tokenizer": "characters"}


@dataclass(frozen=True)
class Setting:
    """A task at a level, and how its start is taught: ``gcd/2``, or ``gcd/2:300:150`` for 300 demonstrations and 150 steps of 64."""

    task: str
    level: int
    demonstrations: int
    steps: int

    @classmethod
    def read(cls, text: str) -> Setting:
        """Return the setting of a name.

        Raises:
            InputError: when there is none of that name and the text does not say how to teach it.
        """
        name, *numbers = text.split(":")
        try:
            task, level = name.split("/")
            demonstrations, steps = map(int, numbers) if numbers else SETTINGS[name]
            return cls(task, int(level), demonstrations, steps)
        except (KeyError, ValueError):
            accepted = f"{', '.join(SETTINGS)}, or task/level:demonstrations:steps"
            raise InputError(f"there is no setting {text!r}{nearest(text, SETTINGS)}; accepted: {accepted}") from None

    @property
    def name(self) -> str:
        """Return ``task/level``."""
        return f"{self.task}/{self.level}"

    @property
    def tasks(self) -> dict[str, list[int]]:
        """Return the task as sources and exams want it."""
        return {self.task: [self.level]}


#: task/level -> demonstrations, supervised steps
SETTINGS: dict[str, tuple[int, int]] = {
    "gcd/2": (300, 300),
    "gcd/3": (300, 300),
    "count/1": (200, 200),
    "reverse/2": (300, 350),
}


@dataclass(frozen=True)
class Own:
    """What a method brings from its paper: fields of the objective, of the rollouts, and its reward. ``minibatches`` is 1 for those that know no ratio."""

    objective: Mapping[str, Any] = field(default_factory=dict)
    rollouts: Mapping[str, Any] = field(default_factory=dict)
    reward: Any = "exact"
    minibatches: int = 2


#: methods that are not their defaults under two updates a generation
OWN: dict[str, Own] = {
    "reinforce": Own(minibatches=1),
    "rloo": Own(minibatches=1),
    "remax": Own(minibatches=1),
    "raft": Own({"above": 0.0}, minibatches=1),
    "topr": Own({"baseline": 0.5}),
    "dapo": Own(rollouts={"repair": "refill"}),
    "dler": Own(rollouts={"repair": "refill"}, reward={"hard_cut": {"correct": "exact"}}),
    "hpt": Own(minibatches=1),
}


def policy_gradients() -> list[str]:
    """Return the catalog's objectives that learn from rewarded answers, but for the parts that they are made of."""
    from outlay.objectives.disco import DiscoB
    from outlay.objectives.hpt import Hpt
    from outlay.objectives.named import Named

    return [name for name, cls in methods_of("objectives").items() if issubclass(cls, Named | DiscoB | Hpt)]


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        kind: ``start``, ``tune`` or ``measure``.
        setting: what is learnt.
        method: ``start``, ``more_sft`` or a policy gradient.
        lr: its peak; of a start that of supervised learning.
        seed: of the run, and of the start that it goes on from.
        rollouts: its budget; 0 for a start.
        problems: held-out problems that its end is judged by.
    """

    kind: str
    setting: Setting
    method: str
    lr: float
    seed: int
    rollouts: int
    problems: int

    @property
    def start(self) -> Job:
        """Return the job that makes the model which this one goes on from."""
        return Job(START, self.setting, START, 3e-3, self.seed, 0, self.problems)

    def recipe(self, model: str) -> dict[str, Any]:
        """Return the run as plain values; ``model`` is the folder of the start's."""
        schedule: Any = {"warmup": {"fraction": 0.05, "then": "linear"}} if self.kind == START else "linear"
        stage: dict[str, Any] = {
            "batch_size": 64 if self.kind == START else BATCH, "optimizer": "adamw",
            "knobs": {"lr": {"peak": self.lr, "schedule": schedule}, "clip": 1.0},
        }  # fmt: skip
        tasks = self.setting.tasks
        if self.method in (START, SFT):
            steps = self.setting.steps if self.kind == START else SFT_TIMES * self.rollouts // BATCH
            budget = f"{steps} steps"
            stage["source"] = {"reasoning": {"tasks": tasks, "examples": self.setting.demonstrations, "longest": 40}}
            stage["objective"] = "next_token"
        else:
            own = OWN.get(self.method, Own())
            budget = f"{self.rollouts} rollouts"
            stage["source"] = {"rollouts": {
                "prompts": {"reasoning": {"tasks": tasks}}, "rewards": {"right": own.reward}, "samples": SAMPLES, "new_tokens": self._longest,
                "engine": {"local": {"slots": 128}}, "minibatches": own.minibatches, **own.rollouts,
            }}  # fmt: skip
            stage["objective"] = {self.method: dict(own.objective)}
        asked = {"tasks": tasks, "problems": self.problems}
        exams = [{"exact_match": asked}, {"sampled_match": {**asked, "samples": 8, "engine": {"local": {"slots": 128}}}}]
        return {
            "name": "policy-gradients", "budget": budget, "seed": self.seed, "threads": 1,
            "model": {"transformer": dict(MODEL)} if self.kind == START else {"pretrained": {"path": model}},
            "stages": [stage], "evaluate": {"start": False, "exams": exams},
        }  # fmt: skip

    @cached_property
    def _longest(self) -> int:
        """Return how many tokens a right answer of this setting takes at most, and its end mark, with room for what is too long."""
        from outlay.sources.prompts import draw_problems

        return max(len(one.answer) for one in draw_problems(self.setting.tasks, "train", 300, 0, "short")) + 2

    @cached_property
    def key(self) -> str:
        """Return the name of the run: whatever decides its outcome goes into it."""
        before = "" if self.kind == START else self.start.key
        told = json.dumps([EDITION, before, self.recipe("")], sort_keys=True)
        digest = hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
        return f"{self.kind} {self.setting.name} {self.method} {self.lr:g} {self.seed} {digest}"

    def model(self, store: Path) -> Path:
        """Return where the start's model lies."""
        return store.absolute() / "starts" / self.start.key.rpartition(" ")[2]


def execute(job: Job, store: Path) -> dict[str, Any]:
    """Spend a job's budget and return what it came to; a failure is an outcome."""
    began, worked = time.perf_counter(), time.process_time()
    folder = Path(tempfile.mkdtemp(prefix="outlay-bench-"))
    row: dict[str, Any] = {
        "key": job.key, "kind": job.kind, "setting": job.setting.name, "method": job.method, "lr": job.lr, "seed": job.seed,
        "metrics": {}, "spent": {}, "accounts": {}, "steps": 0, "outcome": "ok", "why": "",
    }  # fmt: skip
    try:
        result = outlay.run(outlay.load_recipe(job.recipe(str(job.model(store)))), folder / "run")
        if result.ended_by == "signal":
            raise KeyboardInterrupt
        row |= {"metrics": result.metrics, "spent": result.spent, "accounts": result.accounts, "steps": result.steps}
        if not all(math.isfinite(row["metrics"][name]) for name in ("exact_match", "sampled_match")):
            row |= {"outcome": "error", "why": f"the run ended with {row['metrics']}"}
        if job.kind == START:
            aside = job.model(store).with_suffix(f".{os.getpid()}")
            shutil.copytree(folder / "run" / "model", aside)
            shutil.rmtree(job.model(store), ignore_errors=True)
            aside.rename(job.model(store))
    except Exception as error:  # one run that fails says nothing about the others
        row |= {"outcome": "error", "why": f"{type(error).__name__}: {error}"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return row | {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}


@dataclass(frozen=True)
class Study:
    """What is compared, and the store of what has been run."""

    store: Store
    settings: tuple[Setting, ...]
    methods: tuple[str, ...]
    seeds: int
    rollouts: int
    rates: tuple[float, ...]
    problems: int

    @property
    def measured_seeds(self) -> range:
        """Seeds that are measured; 0 is left for trying things out."""
        return range(1, self.seeds + 1)

    def _job(self, kind: str, setting: Setting, method: str, lr: float, seed: int, rollouts: int) -> Job:
        job = Job(kind, setting, method, lr, seed, rollouts, self.problems)
        return _known.setdefault(job, job)

    def start(self, setting: Setting, seed: int) -> Job:
        """Return the job that teaches a start."""
        return self._job(START, setting, START, 3e-3, seed, 0)

    def starts(self) -> list[Job]:
        """Return the jobs that teach all starts."""
        return [self.start(setting, seed) for setting in self.settings for seed in (TUNE_SEED, *self.measured_seeds)]

    def tries(self, method: str) -> list[Job]:
        """Return the search for a method's rate."""
        share = round(self.rollouts * TUNE_SHARE)
        return [self._job("tune", setting, method, lr, TUNE_SEED, share) for setting in self.settings for lr in self.rates]

    def measured(self, method: str) -> list[Job]:
        """Return a method's runs at the rates that were found; none on a setting where that is not known."""
        found = [(setting, self.rate(method, setting)) for setting in self.settings]
        return [
            self._job("measure", setting, method, lr, seed, self.rollouts)
            for setting, lr in found
            if lr is not None
            for seed in self.measured_seeds
        ]

    def rate(self, method: str, setting: Setting) -> float | None:
        """Return the rate that was best on a setting, by sampled accuracy; None while tries are missing. Among equals the smallest."""
        jobs = [job for job in self.tries(method) if job.setting == setting]
        if any(job.key not in self.store for job in jobs):
            return None
        return max(jobs, key=self.accuracy).lr

    def accuracy(self, job: Job, metric: str = "sampled_match") -> float:
        """Return what a run ended with; a failed one has answered nothing."""
        row = self.store[job.key]
        return float(row["metrics"][metric]) if row["outcome"] == "ok" else 0.0

    def missing(self) -> Iterator[Job]:
        """Yield every job that can be run now, starts first."""
        waiting = [job for method in self.methods for job in [*self.tries(method), *self.measured(method)] if job.key not in self.store]
        needed = {job.start.key for job in waiting}
        for job in self.starts():
            # a start that was taught elsewhere is taught again where its model is needed
            if job.key not in self.store or (job.key in needed and self._taught(job) and not job.model(self.store.folder).is_dir()):
                yield job
        for job in waiting:
            start = self.start(job.setting, job.seed)
            if self._taught(start) and start.model(self.store.folder).is_dir():
                yield job

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return kind -> (done, all)."""
        jobs = {START: self.starts(), "tune": [job for method in self.methods for job in self.tries(method)]}
        found = {kind: (sum(job.key in self.store for job in mine), len(mine)) for kind, mine in jobs.items()}
        done = sum(job.key in self.store for method in self.methods for job in self.measured(method))
        return found | {"measure": (done, len(self.methods) * len(self.settings) * self.seeds)}

    def failed(self) -> list[dict[str, Any]]:
        """Return the rows of runs that failed."""
        every = [*self.starts(), *(job for method in self.methods for job in [*self.tries(method), *self.measured(method)])]
        return [self.store[job.key] for job in every if job.key in self.store and self.store[job.key]["outcome"] != "ok"]

    def _taught(self, start: Job) -> bool:
        row = self.store.get(start.key)
        return row is not None and row["outcome"] == "ok"


#: a job is asked for again and again, and its key reads a recipe
_known: dict[Job, Job] = {}


def spend(study: Study, processes: int) -> None:
    """Run what is missing, ``processes`` at a time."""
    for method in study.methods:  # wrong recipes cost nothing
        outlay.load_recipe(study.tries(method)[0].recipe("start"))
    running: dict[Future[dict[str, Any]], Job] = {}
    took: dict[str, list[float]] = {}
    with one_thread_each(), workers(processes) as pool:
        while True:
            for job in study.missing():
                if len(running) >= processes:
                    break
                if job not in running.values():
                    running[pool.submit(execute, job, study.store.folder)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, row = running.pop(future), future.result()
                study.store.add(row)
                took.setdefault(job.kind, []).append(row["seconds"])
                _progress(study, row, took, processes)


def _progress(study: Study, row: dict[str, Any], took: Mapping[str, Sequence[float]], processes: int) -> None:
    left, weight = 0.0, {START: 1.0, "tune": TUNE_SHARE, "measure": 1.0}
    alike = [seconds / weight[kind] for kind, times in took.items() if kind != START for seconds in times]
    for kind, (done, whole) in study.counts().items():
        times = took.get(kind) or [second * weight[kind] for second in alike or took[next(iter(took))]]
        left += (whole - done) * statistics.fmean(times) / processes
    told = ", ".join(f"{done}/{whole} {kind}" for kind, (done, whole) in study.counts().items())
    ended = f"sampled {row['metrics']['sampled_match']:.3f}" if row["outcome"] == "ok" else f"FAILED ({row['why'][:200]})"
    name = f"{row['setting']} {row['method']} lr {row['lr']:g} seed {row['seed']}"
    print(f"{told}; {left / 60:.0f} min left; {name}: {ended} in {row['seconds']:.1f} s", file=sys.stderr, flush=True)


# ---- what it came to --------------------------------------------------------------------------------------------------------------------

SAMPLED, GREEDY = "sampled_match", "exact_match"


def gains(study: Study, method: str, metric: str) -> dict[tuple[str, int], float]:
    """Return (setting, seed) -> accuracy less that of the start."""
    found = {}
    for job in study.measured(method):
        start = study.start(job.setting, job.seed)
        if job.key in study.store and start.key in study.store:
            found[job.setting.name, job.seed] = study.accuracy(job, metric) - study.accuracy(start, metric)
    return found


def averaged(values: Mapping[str, Mapping[tuple[str, int], float]]) -> dict[str, Interval]:
    """Return method -> mean over settings and seeds, with the interval over resampled settings, and seeds within them, where all were measured."""
    places = set.intersection(*(set(mine) for mine in values.values())) if values else set()
    return average_ranks({(setting, 1.0, seed): {name: mine[setting, seed] for name, mine in values.items()} for setting, seed in places})


def ranked(study: Study, methods: Sequence[str], metric: str) -> dict[str, Interval]:
    """Return each method's average rank, 1 is best."""
    found = {name: gains(study, name, metric) for name in methods}
    places = set.intersection(*(set(mine) for mine in found.values())) if found else set()
    table = {(setting, 1.0, seed): ranks({name: -mine[setting, seed] for name, mine in found.items()}) for setting, seed in places}
    return average_ranks(table)


def report(study: Study, command: str) -> str:
    """Return everything that has been found so far as Markdown."""
    methods = [name for name in study.methods if gains(study, name, SAMPLED)]
    parts = ["# Policy gradients at equal rollouts\n", _about(study, command)]
    if methods:
        parts += [
            _verdict(study, methods),
            _overall(study, methods),
            _by_setting(study, methods, SAMPLED),
            _by_setting(study, methods, GREEDY),
        ]
        parts += [_search(study, methods), _spent(study, methods)]
    failed = study.failed()
    if failed:
        lines = [f"- {row['kind']} {row['setting']} {row['method']} lr {row['lr']:g} seed {row['seed']}: {row['why']}" for row in failed]
        parts.append("## Runs that failed\n\nThey count as runs that answer nothing.\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _about(study: Study, command: str) -> str:
    counts = study.counts()
    done, whole = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
    rows = [study.store[job.key] for job in study.starts() if job.key in study.store]
    for method in study.methods:
        rows += [study.store[job.key] for job in [*study.tries(method), *study.measured(method)] if job.key in study.store]
    hours = math.fsum(row["cpu"] for row in rows) / 3600
    size, rates = f"{MODEL['layers']} layers of {MODEL['hidden']}", ", ".join(f"{rate:g}" for rate in study.rates)
    return f"""Does every method improve held-out accuracy over the supervised model that it starts from, when all may generate the same number of answers?
{done} of {whole} runs so far, {hours:.2f} hours of processor time. Everything on this page is printed by

```bash
{command}
```

- **Starts.** One for every setting and seed: a character-level Llama of {size}, taught on a few hundred demonstrations to the half-solved
  band. All methods go on from the same one.
- **Budget.** {study.rollouts:,} rollouts for every method, whatever it does with them: greedy baselines (remax) and groups thrown away
  (dapo, dler) are paid from it, and leave fewer updates. {SAMPLES} answers to a question, {BATCH} answers an update, AdamW, rate linear to
  zero. `{SFT}` reads the demonstrations of the start again, {SFT_TIMES} steps of {BATCH} for every update of the others; what that takes
  is in the last table. `hpt` is also given the right answer to every question that
  none of its rollouts solved: labels that the others do not have.
- **Methods** are as their papers have them: with their own clip, divergence and aggregation, two updates a generation where they know a
  ratio and one where they do not (and for rloo and hpt, whose papers stay on policy); dapo and dler ask again where all answers are worth
  the same; raft learns from right answers alone; topr's baseline is 1/2. dapo's punishment of overlong answers is left out.
- **Rates.** {len(study.rates)} for every method ({rates}), each tried on every setting with {TUNE_SHARE:.0%} of the rollouts on a start of
  seed {TUNE_SEED}, which is not measured. The rate with the best sampled accuracy is used on that setting.
- **Measured** on {study.problems} held-out problems a setting (fewer where there are not so many), the same for start and methods: sampled
  accuracy (8 answers at temperature 1) and greedy accuracy. No held-out problem is ever asked in training.
  Seeds: {", ".join(map(str, study.measured_seeds))}.
- **Intervals**, 95 %. Averages and ranks: settings, and seeds within them, resampled. Single settings: Student's t over seeds, paired with
  the start.
"""


def _verdict(study: Study, methods: Sequence[str]) -> str:
    mine = [name for name in methods if name != SFT]
    found = {metric: averaged({name: gains(study, name, metric) for name in methods}) for metric in (SAMPLED, GREEDY)}
    lines = ["## Verdict\n"]
    for metric, what in ((SAMPLED, "sampled"), (GREEDY, "greedy")):
        better = [name for name in mine if name in found[metric] and found[metric][name].low > 0]
        other = [name for name in mine if name not in better]
        rest = f" Not: {', '.join(other)}." if other else ""
        lines.append(
            f"- **{len(better)} of {len(mine)} policy-gradient methods improve {what} accuracy over the start** beyond their interval.{rest}"
        )
        if SFT in methods:
            base = gains(study, SFT, metric)
            over = averaged(
                {name: {place: gain - base[place] for place, gain in gains(study, name, metric).items() if place in base} for name in mine}
            )
            better = [name for name in mine if name in over and over[name].low > 0]
            rest = ", ".join(name for name in mine if name not in better)
            lines.append(
                f"- {len(better)} of {len(mine)} improve it beyond what `{SFT}` does{f'; not: {rest}' if rest and better else ''}."
            )
    return "\n".join(lines) + "\n"


def _overall(study: Study, methods: Sequence[str]) -> str:
    places = {metric: ranked(study, methods, metric) for metric in (SAMPLED, GREEDY)}
    gained = {metric: averaged({name: gains(study, name, metric) for name in methods}) for metric in (SAMPLED, GREEDY)}
    if not places[SAMPLED]:
        return ""
    lines = [
        f"## Average rank of {len(methods)} methods on {len(study.settings)} settings (1 is best)\n",
        "Gains are accuracy at the end less that of the start. Better and worse count settings where the whole interval of the sampled gain lies "
        "on one side of zero.\n",
        "| method | rank, sampled | sampled gain | rank, greedy | greedy gain | better | worse |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in sorted(methods, key=lambda name: places[SAMPLED][name].mean):
        single = [_single(study, name, SAMPLED, setting) for setting in study.settings]
        better, worse = sum(one.low > 0 for one in single), sum(one.high < 0 for one in single)
        cells = [_shown(places[SAMPLED][name], 1), _shown(gained[SAMPLED][name], 3, True)]
        cells += [_shown(places[GREEDY][name], 1), _shown(gained[GREEDY][name], 3, True), str(better), str(worse)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _single(study: Study, method: str, metric: str, setting: Setting) -> Interval:
    return mean_interval([gain for (name, _), gain in gains(study, method, metric).items() if name == setting.name])


def _shown(interval: Interval, digits: int, sign: bool = False) -> str:
    plus = "+" if sign else ""
    return f"**{interval.mean:{plus}.{digits}f}** [{interval.low:{plus}.{digits}f}, {interval.high:{plus}.{digits}f}]"


def _by_setting(study: Study, methods: Sequence[str], metric: str) -> str:
    what = "Sampled" if metric == SAMPLED else "Greedy"
    lines = [
        f"## {what} accuracy by setting\n",
        "Mean over seeds; behind it the gain over the start, ± half of its interval.\n",
        "| method | " + " | ".join(setting.name for setting in study.settings) + " |", "|---|" + "---|" * len(study.settings),
    ]  # fmt: skip
    starts = [[study.accuracy(study.start(setting, seed), metric) for seed in study.measured_seeds if study.start(setting, seed).key in study.store]
              for setting in study.settings]  # fmt: skip
    lines.append("| *start* | " + " | ".join(f"{statistics.fmean(mine):.3f}" if mine else "" for mine in starts) + " |")
    for name in methods:
        cells = []
        for setting in study.settings:
            ended = [study.accuracy(job, metric) for job in study.measured(name) if job.setting == setting and job.key in study.store]
            gain = _single(study, name, metric, setting)
            spread = f" ± {gain.high - gain.mean:.3f}" if math.isfinite(gain.high) else ""
            cells.append(f"{statistics.fmean(ended):.3f} ({gain.mean:+.3f}{spread})" if ended else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _search(study: Study, methods: Sequence[str]) -> str:
    lines = [
        "## The search\n", "The rate that was found on each setting, and the sampled accuracy that every rate came to on the tuning seed.\n",
        "| method | " + " | ".join(setting.name for setting in study.settings) + " |", "|---|" + "---|" * len(study.settings),
    ]  # fmt: skip
    edges = [0, 0]
    for name in methods:
        cells = []
        for setting in study.settings:
            best = study.rate(name, setting)
            tried = [f"{study.accuracy(job):.3f}" for job in study.tries(name) if job.setting == setting and job.key in study.store]
            cells.append(f"{best:g} ({', '.join(tried)})" if best is not None else "")
            edges = [count + (best == rate) for count, rate in zip(edges, (study.rates[0], study.rates[-1]), strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    tail = f"\nThe smallest rate was best in {edges[0]} searches and the largest in {edges[1]}.\n" if len(study.rates) > 2 else ""
    return "\n".join(lines) + "\n" + tail


def _spent(study: Study, methods: Sequence[str]) -> str:
    units = ("rollouts", "new_tokens", "labels", "flops")
    lines = [
        "## What a run spent\n", "Means over the measured runs, the exam included in new tokens, FLOPs and processor seconds.\n",
        "| method | updates | rollouts | new tokens | labels | GFLOP | seconds |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in methods:
        rows = [study.store[job.key] for job in study.measured(name) if job.key in study.store]
        means = {unit: statistics.fmean(row["spent"].get(unit, 0.0) for row in rows) for unit in units}
        cells = [f"{statistics.fmean(row['steps'] for row in rows):.1f}", *(f"{means[unit]:,.0f}" for unit in units[:3])]
        cells += [f"{means['flops'] / 1e9:,.1f}", f"{statistics.fmean(row['cpu'] for row in rows):.1f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--settings", type=_listed, default=list(SETTINGS), help=f"some of {','.join(SETTINGS)}, or task/level:demonstrations:steps"
    )
    parser.add_argument("--methods", type=_listed, default=None, help="names of policy gradients, and more_sft; all unless said")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rollouts", type=int, default=50 * BATCH, help="budget of every run after its start")
    parser.add_argument("--rates", type=lambda text: [float(part) for part in _listed(text)], default=[1e-4, 3e-4, 9e-4])
    parser.add_argument("--problems", type=int, default=300, help="held-out problems at most")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--store", type=Path, default=Path("runs/policy-gradients"))
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    parser.add_argument("--show", action="store_true", help="run nothing, print what the store holds")
    parser.add_argument("--out", type=Path, help="write the tables there as well")
    asked = parser.parse_args(arguments)
    known = [*policy_gradients(), SFT]
    methods = asked.methods or known
    store = Store(asked.store, retry=asked.retry)
    try:
        for name in methods:
            if name not in known:
                raise InputError(f"there is no policy gradient {name!r}{nearest(name, known)}; accepted: {', '.join(known)}")
        settings = tuple(map(Setting.read, asked.settings))
    except InputError as error:
        parser.error(str(error))
    study = Study(store, settings, tuple(methods), asked.seeds, asked.rollouts, tuple(sorted(asked.rates)), asked.problems)
    if not asked.show:
        spend(study, asked.workers)
    words = list(sys.argv[1:] if arguments is None else arguments)
    text = report(study, " ".join(["python bench/policy_gradients.py", *words]))
    print(text)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
