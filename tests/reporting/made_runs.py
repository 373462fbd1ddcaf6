"""A run directory as a training run writes it, with books that add up: made up here so that reports can be tested without training."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Books = dict[str, dict[str, float]]
RECIPE = """# resolved recipe
name: {name}
budget: {budget}
model:
  source: tiny
stages:
  - name: sft
    knobs: {{lr: {{schedules/rex: {{peak: 0.002}}}}}}
  - name: polish
"""


@dataclass
class Book:
    """Writes journal lines and keeps the sums that a reader must arrive at."""

    lines: list[str] = field(default_factory=list)
    accounts: Books = field(default_factory=dict)
    by_stage: dict[str, Books] = field(default_factory=dict)
    pending: Books = field(default_factory=dict)
    raw: list[tuple[int, str, Books]] = field(default_factory=list)
    standing: list[tuple[int, str, Books]] = field(default_factory=list)
    at: float = 0.0

    def charge(self, account: str, **amounts: float) -> None:
        book = self.pending.setdefault(account, {})
        for unit, amount in amounts.items():
            book[unit] = book.get(unit, 0.0) + amount
        self.at += amounts.get("seconds", 0.0)

    def write(self, kind: str, spender: str, **entries: Any) -> None:
        line = {"n": len(self.lines), "kind": kind, "at": self.at, **entries}
        if self.pending:
            line["charged"] = self.pending
            self.raw.append((len(self.lines), spender, self.pending))
            self.standing.append(self.raw[-1])
            self.add(spender, self.pending, 1)
        self.pending = {}
        self.lines.append(json.dumps(line))

    def add(self, stage: str, charged: Books, sign: int) -> None:
        for account, amounts in charged.items():
            for unit, amount in amounts.items():
                for books in (self.accounts, self.by_stage.setdefault(stage, {})):
                    book = books.setdefault(account, {})
                    book[unit] = book.get(unit, 0.0) + sign * amount

    def undo(self, saved_at: int) -> dict[str, float]:
        """Take back what was charged after the checkpoint reported at a line; return by unit what a resumption calls lost."""
        first = saved_at + 1 if saved_at > 1 else 0
        lost: dict[str, float] = {}
        for n, _, charged in self.raw:
            for account, amounts in charged.items():
                for unit, amount in amounts.items():
                    if n >= first and account != "lost":
                        lost[unit] = lost.get(unit, 0.0) + amount
        for _, stage, charged in [entry for entry in self.standing if entry[0] >= first]:
            self.add(stage, charged, -1)
        self.standing = [entry for entry in self.standing if entry[0] < first]
        return lost

    def spent(self, unit: str) -> float:
        return math.fsum(book.get(unit, 0.0) for book in self.accounts.values())


@dataclass
class Made:
    """The folder, and the sums it must be read as."""

    path: Path
    book: Book
    lost: dict[str, float]
    limits: dict[str, float]


def exam(quality: float, rng: random.Random) -> dict[str, float]:
    """Results of an evaluation that get better with ``quality`` in [0, 1]."""
    found: dict[str, float] = {}
    for t, task in enumerate(("base_conversion", "gcd", "chain_sum", "calendar_arithmetic", "letter_counting")):
        for level in (1, 2, 3):
            found[f"exact_match/{task}/{level}"] = round(
                min(1.0, max(0.0, quality * (1.25 - 0.3 * level) + 0.03 * t - 0.02 * rng.random())), 3
            )
    return {"exact_match": sum(found.values()) / len(found), "loss/held_out": 3.1 - 2.2 * quality + 0.02 * rng.random(), **found}


def make_run(
    path: Path,
    *,
    name: str = "arithmetic-sft",
    steps: int = 400,
    seconds: float | None = None,
    tokens: float | None = None,
    seed: int = 0,
    peak: float = 0.002,
    killed_at: tuple[int, ...] = (),
    finished: bool = True,
    ended_by: str | None = None,
    metric_names: tuple[str, ...] = ("accuracy",),
    price: dict[str, Any] | None = None,
) -> Made:
    """Write a run of two stages; ``killed_at``: after these steps the process dies and resumes from the checkpoint before."""
    rng, book = random.Random(seed), Book()
    lost: dict[str, float] = {}
    lost_when_saved: dict[str, float] = {}
    path.mkdir(parents=True)
    step_seconds = 0.11
    limits = {unit: limit for unit, limit in (("seconds", seconds), ("tokens", tokens)) if limit} or {
        "seconds": steps * (step_seconds + 0.007) + 22 + 0.13 * sum(at % (steps // 4) for at in killed_at)
    }
    budget = " or ".join(f"{limit:.0f} {unit}" for unit, limit in limits.items())
    book.charge("setup", seconds=1.9)
    book.write(
        "run",
        "before the first stage",
        format=1,
        name=name,
        budget=budget,
        limits=limits,
        ceilings={"memory": 2**31},
        price=price,
        seed=seed,
        recipe={"name": name, "stages": [{"name": "sft", "peak": peak}, {"name": "polish"}]},
        device="cpu",
        threads=2,
        precision="float32",
        parameters=1_048_576,
        trainable=1_048_576,
        versions={"python": "3.11.2", "torch": "2.13.0", "outlay": "0.1.0"},
    )
    plan = {
        "parameters": 1_048_576,
        "trainable": 1_048_576,
        "micro_batch": 32,
        "flops_per_step": 1.31e10,
        "tokens_per_step": 2048.0,
        "basis": "probe",
        "memory": {"weights": 4.2e6, "gradients": 4.2e6, "optimizer": 8.4e6, "activations": 9.1e7, "total": 1.078e8},
        "step_seconds": step_seconds,
        "steps": steps + 14,
        "tokens": 2048 * steps + 3e4,
        "seconds": limits.get("seconds"),
        "flops": 1.31e10 * steps,
        "ends_by": "seconds",
        "reserve": {"seconds": 4.0},
        "notes": ["The held-out evaluation takes 1.4 s; 9 of them fit."],
    }
    book.charge("plan", seconds=0.4)
    book.charge("probe", seconds=1.2, tokens=6144.0, flops=4e10)
    book.write("plan", "before the first stage", plan=plan)
    book.write("decision", "before the first stage", what="micro-batch 32", why="memory ceiling 2 GiB: 64 would need 2.3 GiB")
    book.charge("eval", seconds=1.5, tokens=4000.0)
    book.write("evaluation", "before the first stage", step=0, progress=0.0, when="start", metrics=exam(0.05, rng))
    turn = int(steps * 0.75)
    saved = (0, 1)
    step, stage, killed = 0, "sft", list(killed_at)
    book.write(
        "stage",
        "before the first stage",
        stage="sft",
        index=0,
        share=0.75,
        limits={unit: [0, 0.75 * limit] for unit, limit in limits.items()},
    )
    while step < steps:
        step += 1
        if step == turn + 1 and stage == "sft":
            book.charge("checkpoint", seconds=0.05)
            book.write(
                "stage", "sft", stage="polish", index=1, share=0.25, limits={unit: [0.75 * limit, limit] for unit, limit in limits.items()}
            )
            stage = "polish"
        done = step / steps
        book.charge("data", seconds=0.006)
        book.charge("idle", seconds=0.001)
        book.charge(
            "train",
            seconds=step_seconds * (0.9 + 0.2 * rng.random()),
            steps=1.0,
            tokens=float(rng.randint(1900, 2100)),
            examples=32.0,
            flops=1.31e10,
        )
        loss = 0.35 + 2.9 * math.exp(-3.2 * done) + 0.12 * rng.gauss(0, 1) * (1.2 - done)
        progress = step / turn if stage == "sft" else (step - turn) / (steps - turn)
        book.write(
            "step",
            stage,
            step=step,
            stage=stage,
            progress=progress,
            loss=loss,
            gradient_norm=math.exp(rng.gauss(0.2 - done, 0.35)),
            knobs={"lr": peak * (1 - done) / (0.5 + 0.5 * (1 - done)), "batch": 32 if done < 0.5 else 64},
            outcome="skipped" if step == 37 else "ok",
            metrics={metric: 1 - loss / 4 for metric in metric_names},
        )
        if step % max(1, steps // 8) == 0 and step < steps:
            book.charge("eval", seconds=1.4, tokens=4000.0)
            book.write(
                "evaluation", stage, step=step, stage=stage, progress=progress, when="during", metrics=exam(1 - math.exp(-2.4 * done), rng)
            )
        if step % max(1, steps // 4) == 0:
            saved, lost_when_saved = (step, len(book.lines)), lost
            book.charge("checkpoint", seconds=0.21)
            book.write("checkpoint", stage, step=step, path=f"checkpoints/step-{step:08d}", bytes=12_582_912, seconds=0.21)
        if killed and killed[0] == step:
            killed.pop(0)
            gone = book.undo(saved[1])
            lost = {unit: gone.get(unit, 0.0) + lost_when_saved.get(unit, 0.0) for unit in {*gone, *lost_when_saved}}
            if gone:
                book.at -= gone["seconds"]
                book.charge("lost", seconds=gone["seconds"])
            book.charge("setup", seconds=2.2)
            spender, step = stage, saved[0]
            stage = "sft" if step <= turn else "polish"
            book.write("resume", spender, from_step=step, from_line=saved[1], lost=gone)
    book.write("warning", stage, message="step 37: the gradient was not finite; the update was skipped")
    if finished:
        finish(path, book, name, stage, step, limits, lost, rng, plan, ended_by or next(iter(limits)))
    (path / "journal.jsonl").write_text("\n".join(book.lines) + "\n")
    (path / "recipe.yaml").write_text(RECIPE.format(name=json.dumps(name), budget=budget))
    (path / "plan.json").write_text(json.dumps(plan))
    return Made(path, book, lost, limits)


def finish(
    path: Path,
    book: Book,
    name: str,
    stage: str,
    step: int,
    limits: dict[str, float],
    lost: dict[str, float],
    rng: random.Random,
    plan: dict[str, Any],
    ended_by: str,
) -> None:
    """The final evaluation, the last lines and the result."""
    book.charge("eval", seconds=1.6, tokens=4000.0)
    final = exam(0.93, rng)
    book.write("evaluation", "after the last stage", step=step, stage=stage, progress=1.0, when="end", metrics=final)
    book.charge("report", seconds=0.2)
    book.write("end", "after the last stage", ended_by=ended_by, message=f"its {ended_by} were spent")
    units = list(dict.fromkeys(unit for amounts in book.accounts.values() for unit in amounts))
    spent = {unit: book.spent(unit) for unit in units}
    result = {
        "name": name,
        "ended_by": ended_by,
        "exit_code": 0,
        "spent": spent,
        "accounts": book.accounts,
        "lost": lost,
        "metrics": final,
        "budget": {unit: {"limit": limit, "spent": spent[unit]} for unit, limit in limits.items()},
        "metrics_start": exam(0.05, random.Random(1)),
        "stages": [],
        "seed": 0,
        "versions": {},
        "parameters": 1_048_576,
        "plan": plan,
        "steps": step,
        "warnings": ["step 37: the gradient was not finite; the update was skipped"],
    }
    (path / "result.json").write_text(json.dumps(result))
