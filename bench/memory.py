"""The most learning per byte: optimizers and adapters on a small Llama at equal tokens and at equal memory, every learning rate searched alike.

    python bench/memory.py [--store runs/memory] [--out docs/results/memory.md] [--expect src/outlay/planning/expected.json]

Three tables. ``tokens``: pre-training from scratch, one model for all. ``memory``: pre-training again, everyone with the widest model whose weights,
gradients and optimizer state take no more than AdamW's with a model of 96. ``tuning``: the model that AdamW pre-trained on source code is fine-tuned
on scripture. Rates: the same grid for all, on a seed that is not measured; where the best lies at an end of what was tried, the grid goes on.
Every run is a line of the store, so that a bench that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import outlay
from outlay.bench import Store
from outlay.bench.running import one_thread_each, workers
from outlay.bench.statistics import Interval, mean_interval
from outlay.catalog import build
from outlay.models import Transformer
from outlay.optim.base import OptimizerSpec

#: part of every run's name; raised when runs are no longer what they were
EDITION = 1
HIDDEN, SMALLER, LENGTH, BATCH = 128, 96, 128, 8
TUNE_SEED = 1000
GRID = (1e-3, 3e-3, 1e-2)
LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
FIRST, SECOND = "code", "scripture"


def trained_from_scratch(hidden: int) -> dict[str, dict[str, Any]]:
    """Return the pre-training methods by name: their ``optimizer``, or AdamW, and their ``adapter`` where they have one."""
    rank, matrices = hidden // 4, {"names": ["weight"]}
    low = {"rank": rank, "period": 50}
    slower = [
        {"projector": {"blocks": {"density": 1.0}}, "residual": {"drop": {"scale": scale}}, "moments": "reset", "period": None}
        for scale in (0.25, 0.0625)
    ]
    return {
        "adamw": {},
        "adamw, matrices at a quarter": {"optimizer": {"subspace": slower[0]}},
        "adamw, matrices at a sixteenth": {"optimizer": {"subspace": slower[1]}},
        "adamw, 8-bit states": {"optimizer": {"subspace": {**matrices, "full": {"adam": {"states": "dynamic8"}}}}},
        "adafactor": {"optimizer": {"subspace": {**matrices, "full": "adafactor"}}},
        "signsgd": {"optimizer": {"frugal": {"density": 0.0}}},
        "sgd": {"optimizer": "sgd"},
        "lamb": {"optimizer": "lamb"},
        "galore": {"optimizer": {"galore": dict(low)}},
        "galore, random": {"optimizer": {"galore": {**low, "projector": {"orthonormal": {"rank": rank}}}}},
        "natural galore": {"optimizer": {"natural_galore": dict(low)}},
        "fira": {"optimizer": {"fira": dict(low)}},
        "apollo": {"optimizer": {"apollo": dict(low)}},
        "apollo-mini": {"optimizer": {"apollo_mini": {"period": 50}}},
        "frugal": {"optimizer": {"frugal": {"density": 0.25, "period": 50}}},
        "frugal, columns": {"optimizer": {"frugal": {"period": 50, "projector": {"columns": {"density": 0.25}}}}},
        "dct-adamw": {"optimizer": {"dct_adamw": {"rank": rank}}},
        "low rank": {"adapter": {"low_rank": {"rank": rank, "alpha": float(rank), "period": 10**6}}},
        "low rank, refactored": {"adapter": {"low_rank": {"rank": rank, "alpha": float(rank), "period": 100}}},
        "sltrain": {"adapter": {"sltrain": {"rank": rank, "alpha": float(rank)}}},
        "sparse spectral": {"adapter": {"sparse_spectral": {"rank": rank, "period": 50, "warmup": 5}}},
        "structured, self-guided": {"adapter": {"structured": {"rank": rank}}},
    }  # fmt: skip


def tuned() -> dict[str, dict[str, Any]]:
    """Return the fine-tuning methods by name."""
    low = {"rank": 8, "period": 50}
    return {
        "adamw": {},
        "galore": {"optimizer": {"galore": dict(low)}},
        "fira": {"optimizer": {"fira": dict(low)}},
        "apollo": {"optimizer": {"apollo": dict(low)}},
        "frugal": {"optimizer": {"frugal": {"density": 0.06, "period": 50, "inactive_scale": 0.1}}},
        "lora": {"adapter": {"lora": {"rank": 8}}},
        "adalora": {"adapter": {"adalora": {"rank": 8, "period": 5}}},
        "lora-xs": {"adapter": {"lora_xs": {"rank": 16}}},
        "lora-sb": {"adapter": {"lora_sb": {"rank": 16}}},
        "intrinsic": {"adapter": {"intrinsic": {"dimensions": 7168}}},
        "sara": {"adapter": {"sara": {"threshold": 0.005}}},
        "safe mask": {"adapter": {"safe_mask": {"kind": "safe", "share": 0.1}}},
        "principal mask": {"adapter": {"safe_mask": {"kind": "principal", "share": 0.1}}},
    }  # fmt: skip


EQUAL_MEMORY = ("adamw", "adamw, 8-bit states", "signsgd", "galore", "fira", "apollo", "apollo-mini", "frugal", "sltrain")


def model(hidden: int) -> dict[str, Any]:
    """Return the plain values of the model from scratch."""
    return {"architecture": "llama", "hidden": hidden, "layers": 4, "heads": 4, "context": LENGTH, "tokenizer": "bytes"}


@cache
def held(kind: str, method: str, hidden: int) -> tuple[int, int, int]:
    """Return the bytes that pre-training holds without activations (weights and buffers, gradients, optimizer state), by its own statement."""
    chosen = methods(kind, hidden)[method]
    module = Transformer(**model(hidden)).build(0).module
    if "adapter" in chosen:
        module = _made("adapters", "Adapter", chosen["adapter"]).attach(module, 0)
    trained = {name: tuple(p.shape) for name, p in module.named_parameters() if p.requires_grad}
    spec: OptimizerSpec = _made("optim", "OptimizerSpec", chosen.get("optimizer", "adamw"))
    gradients = sum(math.prod(shape) for shape in trained.values()) * 4
    weights = sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])
    return weights, gradients, spec.state_bytes(trained)


def _made(family: str, seam: str, plain: Any) -> Any:
    import importlib

    problems: list[Any] = []
    made = build(getattr(importlib.import_module(f"outlay.{family}.base"), seam), plain, "", problems)
    if problems:
        raise outlay.InputError(problems)
    return made


@cache
def widest(method: str) -> int:
    """Return the widest model, in steps of 8, that the method trains in the memory that AdamW takes for a model of 96."""
    ceiling = sum(held("tokens", "adamw", SMALLER))
    return max(hidden for hidden in range(64, 257, 8) if sum(held("tokens", method, hidden)) <= ceiling)


def methods(kind: str, hidden: int = HIDDEN) -> dict[str, dict[str, Any]]:
    """Return what is compared in a table."""
    if kind == "tuning":
        return tuned()
    every = trained_from_scratch(hidden)
    return {name: every[name] for name in EQUAL_MEMORY} if kind == "memory" else every


@dataclass(frozen=True)
class Job:
    """One run of a table: a method at a rate with a seed for so many tokens; ``tune`` for tries."""

    kind: str
    method: str
    lr: float
    seed: int
    tokens: int
    tune: bool = False

    @property
    def hidden(self) -> int:
        """Return the model's width."""
        return widest(self.method) if self.kind == "memory" else HIDDEN

    def recipe(self, base: Path | None = None) -> dict[str, Any]:
        """Return the run as plain values; ``base`` is the folder of the pre-trained model."""
        chosen = methods(self.kind, self.hidden)[self.method]
        corpus = SECOND if self.kind == "tuning" else FIRST
        part = [0.0, 0.4] if self.tune else [0.4, 1.0]
        exams: list[Any] = [{"held_out_loss": {"name": "held_out", "part": part, "examples": 64 if self.tune else 128, "batch_size": 32}}]
        if self.kind == "tuning" and not self.tune:
            source = {"text": {"corpus": FIRST, "length": LENGTH, "held_out_share": 0.1}}
            exams.append({"held_out_loss": {"name": "first", "part": part, "examples": 128, "batch_size": 32, "source": source}})
        stage = {
            "source": {"text": {"corpus": corpus, "length": LENGTH, "held_out_share": 0.1}},
            "optimizer": chosen.get("optimizer", "adamw"), "batch_size": BATCH, "objective": "next_token",
            "knobs": {"lr": {"peak": self.lr, "schedule": {"warmup": {"fraction": 0.1, "then": "cosine"}}}, "clip": 1.0},
        }  # fmt: skip
        plain: dict[str, Any] = {
            "name": "memory", "seed": self.seed, "threads": 1, "budget": f"{self.tokens} tokens", "stages": [stage],
            "model": {"pretrained": {"path": str(base)}} if self.kind == "tuning" else {"transformer": model(self.hidden)},
            "evaluate": {"start": False, "exams": exams},
        }  # fmt: skip
        return plain | ({"adapter": chosen["adapter"]} if "adapter" in chosen else {})

    @property
    def key(self) -> str:
        """Return the name of the run: whatever decides its outcome goes into it."""
        parts = json.dumps([EDITION, self.recipe(Path("base"))], sort_keys=True)
        digest = hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()
        return f"{self.kind} {self.method} {self.lr:g} {self.seed} {self.tokens} {digest}"


def execute(job: Job, base: Path | None, keep: Path | None = None) -> dict[str, Any]:
    """Spend a job's budget and return what it came to; a failure is an outcome. With ``keep`` the trained model stays there."""
    worked, folder = time.process_time(), Path(tempfile.mkdtemp(prefix="outlay-bench-"))
    row: dict[str, Any] = {"key": job.key, "loss": math.inf, "first": None, "outcome": "ok", "why": ""}
    try:
        result = outlay.run(outlay.load_recipe(job.recipe(base)), folder / "run")
        if result.ended_by == "signal":
            raise KeyboardInterrupt
        loss = result.metrics["held_out/loss"]
        row |= {"loss": loss if math.isfinite(loss) else math.inf, "first": result.metrics.get("first/loss"), "accounts": result.accounts}
        if keep is not None:
            shutil.copytree(folder / "run" / "model", keep, dirs_exist_ok=True)
    except Exception as error:  # one run that fails says nothing about the others
        row |= {"outcome": "error", "why": f"{type(error).__name__}: {error}"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return row | {"cpu": time.process_time() - worked}


@dataclass(frozen=True)
class Study:
    """What is compared, and the store of what has been run."""

    store: Store
    folder: Path
    seeds: int
    tokens: int
    fine: int
    kinds: tuple[str, ...]
    leave_out: tuple[str, ...] = ()

    @property
    def base(self) -> Path:
        """Return the folder of the model that is fine-tuned."""
        return self.folder / "base"

    def budget(self, kind: str) -> int:
        """Return a run's tokens."""
        return self.fine if kind == "tuning" else self.tokens

    def tries(self, kind: str, method: str) -> list[Job]:
        """Return the search for a method's rate so far and the next tries: where the best is the first or the last, it goes on."""
        rates = list(GRID)
        while True:
            jobs = [Job(kind, method, lr, TUNE_SEED, self.budget(kind) // 2, True) for lr in rates]
            if any(job.key not in self.store for job in jobs):
                return jobs
            best = min(jobs, key=self.loss).lr
            if best == rates[0] and rates[0] != LADDER[0]:
                rates.insert(0, LADDER[LADDER.index(rates[0]) - 1])
            elif best == rates[-1] and rates[-1] != LADDER[-1]:
                rates.append(LADDER[LADDER.index(rates[-1]) + 1])
            else:
                return jobs

    def rate(self, kind: str, method: str) -> float | None:
        """Return the rate with the smallest loss; None while tries are missing. At equal memory the one found at equal tokens."""
        jobs = self.tries("tokens" if kind == "memory" else kind, method)
        return min(jobs, key=self.loss).lr if all(job.key in self.store for job in jobs) else None

    def measured(self, kind: str, method: str) -> list[Job]:
        """Return a method's runs at the rate that was found; none while it is not known."""
        lr = self.rate(kind, method)
        return [Job(kind, method, lr, seed, self.budget(kind)) for seed in range(1, self.seeds + 1)] if lr is not None else []

    def loss(self, job: Job) -> float:
        """Return a run's held-out loss."""
        return float(self.store[job.key]["loss"])

    def complete(self, kind: str, method: str) -> list[Job]:
        """Return a method's measured runs once all of them are there."""
        jobs = self.measured(kind, method)
        return jobs if jobs and all(job.key in self.store for job in jobs) else []

    def missing(self) -> Iterator[Job]:
        """Yield every job that can be run now."""
        for kind in self.kinds:
            if kind == "tuning" and not (self.base / "config.json").exists():
                continue
            for method in methods(kind):
                if method in self.leave_out:
                    continue
                wanted = [*([] if kind == "memory" else self.tries(kind, method)), *self.measured(kind, method)]
                yield from (job for job in wanted if job.key not in self.store)


def spend(study: Study, processes: int, seconds: float) -> None:
    """Run what is missing, ``processes`` at a time; none is begun after so many seconds."""
    began = time.monotonic()
    for kind in study.kinds:  # wrong recipes cost nothing
        for method in methods(kind) if kind != "tuning" else ():
            outlay.load_recipe(Job(kind, method, GRID[0], TUNE_SEED, study.budget(kind), True).recipe())
    running: dict[Future[dict[str, Any]], Job] = {}
    with one_thread_each(), workers(processes) as pool:
        while True:
            if "tuning" in study.kinds and not (study.base / "config.json").exists():
                _pretrain(study)
            for job in study.missing():
                if len(running) >= processes or time.monotonic() - began > seconds:
                    break
                if job not in running.values():
                    running[pool.submit(execute, job, study.base)] = job
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job, row = running.pop(future), future.result()
                study.store.add(row)
                told = f"{row['loss']:.4f}" if row["outcome"] == "ok" else row["why"]
                print(f"{job.key}: {told} ({row['cpu']:.0f} s)", file=sys.stderr, flush=True)


def _pretrain(study: Study) -> None:
    """Make the model that is fine-tuned: AdamW's, of a seed of its own."""
    row = execute(Job("tokens", "adamw", 1e-3, 77, 2 * study.tokens), None, study.base)
    if row["outcome"] != "ok":
        raise SystemExit(f"the model to be fine-tuned could not be made: {row['why']}")


#: (table, lower loss, higher loss, where it is said): orderings of the papers
ORDERINGS = (
    ("tokens", "fira", "galore", "2410.01623"), ("tokens", "fira", "adamw", "2410.01623"), ("tokens", "adamw", "galore", "2403.03507"),
    ("tokens", "apollo", "galore", "2412.05270"), ("tokens", "apollo", "adamw", "2412.05270"), ("tokens", "apollo-mini", "adamw", "2412.05270"),
    ("tokens", "frugal", "signsgd", "2411.07837"), ("tokens", "adamw", "frugal", "2411.07837"), ("tokens", "frugal", "galore", "2411.07837"),
    ("tokens", "natural galore", "galore", "2410.16029"), ("tokens", "sltrain", "low rank", "2406.02214"),
    ("tokens", "sparse spectral", "low rank", "2405.15481"), ("tokens", "adamw", "low rank", "2505.22922"), ("tokens", "adamw", "sltrain", "2406.02214"),
    ("memory", "fira", "adamw", "more weights for the bytes"), ("memory", "galore", "adamw", "more weights for the bytes"),
    ("memory", "apollo", "adamw", "more weights for the bytes"), ("memory", "signsgd", "adamw", "more weights for the bytes"),
    ("tuning", "adalora", "lora", "2303.10512"), ("tuning", "lora-sb", "lora-xs", "2411.19557"), ("tuning", "lora-sb", "lora", "2411.19557"),
    ("tuning", "apollo", "galore", "2412.05270"),
)  # fmt: skip


def orderings(study: Study) -> str:
    """Return which of the papers' orderings are seen here, as Markdown."""
    rows = ["| table | lower loss | than | said by | difference | here |", "|---|---|---|---|---|---|"]
    for kind, lower, higher, paper in ORDERINGS:
        if study.complete(kind, lower) and study.complete(kind, higher):
            gap = difference(study, kind, lower, higher)
            seen = {"better": "holds", "worse": "does not hold", "undecided": "not shown"}[verdict(gap)]
            rows.append(f"| {kind} | {lower} | {higher} | {paper} | {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] | {seen} |")
    return "\n".join(rows) + "\n"


def difference(study: Study, kind: str, method: str, base: str = "adamw") -> Interval:
    """Return the paired difference of the final loss to another's; below 0 is better."""
    mine, other = study.complete(kind, method), study.complete(kind, base)
    pairs = [(study.loss(a), study.loss(b)) for a, b in zip(mine, other, strict=True)]
    return mean_interval([a - b for a, b in pairs])


def verdict(gap: Interval) -> str:
    """Return what an interval of differences says."""
    return "better" if gap.high < 0 else "worse" if gap.low > 0 else "undecided"


def table(study: Study, kind: str) -> str:
    """Return a table as Markdown, best first."""
    done = [name for name in methods(kind) if study.complete(kind, name)]
    means = {name: statistics.fmean(study.loss(job) for job in study.complete(kind, name)) for name in done}
    if "adamw" not in means:
        return "Not measured yet.\n"
    head = {"tokens": "state | held", "memory": "width | held", "tuning": f"trained | loss on {FIRST}"}[kind]
    rows = [f"| method | final loss | - AdamW's | | rate | {head} |", "|---|---|---|---|---|---|---|"]
    for name in sorted(done, key=means.__getitem__):
        gap, jobs = difference(study, kind, name), study.complete(kind, name)
        shown = "" if name == "adamw" else f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] | {verdict(gap)}"
        rows.append(f"| {name} | {means[name]:.4f} | {shown or '|'} | {jobs[0].lr:g} | {_weights(study, kind, name)} |")
    return "\n".join(rows) + "\n"


def _weights(study: Study, kind: str, method: str) -> str:
    if kind == "tuning":
        first = [study.store[job.key]["first"] for job in study.complete(kind, method)]
        return f"{trained_count(study, method):,} | {statistics.fmean(first):.4f}"
    hidden = HIDDEN if kind == "tokens" else widest(method)
    ours, theirs = held("tokens", method, hidden), held("tokens", "adamw", HIDDEN if kind == "tokens" else SMALLER)
    lead = f"{ours[2] / theirs[2]:.2f}" if kind == "tokens" else str(hidden)
    return f"{lead} | {sum(ours) / sum(theirs):.2f}"


def trained_count(study: Study, method: str) -> int:
    """Return how many parameters a fine-tuning method trains."""
    plain = Job("tuning", method, GRID[0], 1, study.fine).recipe(study.base)
    recipe = outlay.load_recipe(plain)
    module = recipe.model.build(0).module
    module = recipe.adapter.attach(module, 0) if recipe.adapter is not None else module
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


#: what must be known to read the first table
CONFOUND = (
    "A rate is one number for all weights, while `scale` makes GaLore's and Fira's matrices four times as slow as the embedding. Plain AdamW is held back "
    "by that here: with its matrices at a quarter or a sixteenth of the rate, nothing else changed, it ends lower too. Read the first places beside those "
    "two rows. The weights that SLTrain and low rank draw are their own.\n"
)


def report(study: Study, command: str) -> str:
    """Return everything that has been found so far as Markdown."""
    cpu = sum(row["cpu"] for row in study.store.rows()) / 3600
    count = len(list(study.store.rows()))
    scratch, ceiling = (
        sum(p.numel() for p in Transformer(**model(HIDDEN)).build(0).module.parameters()),
        sum(held("tokens", "adamw", SMALLER)),
    )
    about = (
        f"A Llama of {scratch:,} parameters on bytes, {study.tokens:,} tokens of the corpus `{FIRST}`, sequences of {LENGTH}, {BATCH} an update, "
        f"cosine after a tenth of warm-up, clipped at 1. Rank and density are a quarter of the width, subspaces are chosen anew every 50 updates. "
        f"{study.seeds} seeds; every learning rate is searched on a seed that is not measured, at half of the tokens, on documents that are not "
        f"measured on: {', '.join(f'{lr:g}' for lr in GRID)}, and on in the same steps while the best is at an end. Intervals are of 95 %, paired by "
        f"seed; losses are nats a byte on documents held out. {count} runs, {cpu:.1f} processor hours.\n"
    )
    parts = [
        "# Learning per byte\n", about, f"Printed by `{command}`.\n", "## At equal tokens\n",
        "State and held (weights, gradients and state, without activations) are shares of AdamW's.\n", table(study, "tokens"),
        CONFOUND,
        "## At equal memory\n",
        f"Everyone has the widest model, in steps of 8, whose weights, gradients and state take no more than {ceiling:,} bytes, AdamW's at a width of "
        f"{SMALLER}; tokens as above, rates those found above; held is the share of that.\n", table(study, "memory"), "## Fine-tuning\n",
        f"The model that AdamW pre-trained on `{FIRST}` for {2 * study.tokens:,} tokens, tuned on `{SECOND}` for {study.fine:,} tokens.\n",
        table(study, "tuning"), "## Which orderings of the papers hold at this scale\n",
        "The papers' models are a hundred times as large and read a thousand times as much.\n", orderings(study),
    ]  # fmt: skip
    return "\n".join(parts)


#: name here -> name of the optimizer in recipes, for those that a plan proposes
PROPOSED = {
    "adamw": "adamw", "adamw, 8-bit states": "adamw_8bit", "adafactor": "adafactor", "fira": "fira", "apollo": "apollo", "frugal": "frugal",
    "galore": "galore", "apollo-mini": "apollo_mini", "signsgd": "signsgd", "sgd": "sgd",
}  # fmt: skip


def expected(study: Study) -> str:
    """Return what plans expect of optimizers, as JSON: the differences at equal tokens."""
    scratch = sum(p.numel() for p in Transformer(**model(HIDDEN)).build(0).module.parameters())
    setting = f"measured on a Llama of {scratch:,} parameters over {study.tokens:,} tokens of bytes, see docs/results/memory.md"
    losses = {}
    for name, known in PROPOSED.items():
        if study.complete("tokens", name):
            gap = difference(study, "tokens", name)
            losses[known] = {"mean": round(gap.mean, 4), "low": round(gap.low, 4), "high": round(gap.high, 4)}
    return json.dumps({"setting": setting, "losses": losses}, indent=1) + "\n"


def main() -> None:
    """Run what is missing and print or write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("runs/memory"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=320_000)
    parser.add_argument("--fine", type=int, default=120_000)
    parser.add_argument("--tables", nargs="*", default=["tokens", "memory", "tuning"], choices=["tokens", "memory", "tuning"])
    parser.add_argument("--leave-out", nargs="*", default=[], help="methods that are not run; what is known of them is shown")
    parser.add_argument("--expect", type=Path, help="where to write what plans expect of optimizers")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after so long")
    told = parser.parse_args()
    study = Study(Store(told.store), told.store, told.seeds, told.tokens, told.fine, tuple(told.tables), tuple(told.leave_out))
    spend(study, told.processes, told.seconds)
    text = report(dataclasses.replace(study, kinds=("tokens", "memory", "tuning")), "python bench/memory.py")
    if told.expect:
        told.expect.write_text(expected(study), encoding="utf-8")
    if told.out:
        told.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
