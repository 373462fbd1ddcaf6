"""Teachers on a mixture of real domains, at equal tokens: does choosing what a small language model reads next lower its held-out losses?

    python bench/mixing.py [--store runs/mixing] [--out docs/results/mixing.md]

Six kinds of text, one Llama from scratch, and the same number of tokens for every method: training, exams that a teacher goes by, exams that are
reported, and trial runs from which a graph is learnt. Learning rates: the same grid for everyone, on a seed that is not measured, at half of the
tokens. Every run is a line of the store, so that a bench that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

import outlay
from outlay.bench import Store
from outlay.bench.running import one_thread_each, workers
from outlay.bench.statistics import Interval, mean_interval
from outlay.errors import InputError, nearest
from outlay.rng import numpy_generator
from outlay.tasks.corpora import CORPORA, Document, documents
from outlay.tasks.reasoning import stream
from outlay.teachers.mixing_agent import Agent, Visit, state_of
from outlay.teachers.mixing_training import Trajectory, train_agent
from outlay.teachers.skill_it import learn_graph_from_drops
from outlay.testing.field_curves import FieldCurves, leaning, still, wandering
from outlay.train.journal import read_journal

#: part of every run's name; raised when runs are no longer what they were
EDITION = 1
CORPUS_DOMAINS = ("code", "scripture", "reference", "bilingual", "verse")
DOMAINS = (*CORPUS_DOMAINS, "reasoning")
#: characters of each domain that lie ready, more than any run reads of it; longer documents are cut
TEXT, DOCUMENT = 500_000, 4000
REASONING = {"gcd": [1, 2, 3], "reverse": [2, 3, 4], "base": [1, 2, 3], "bits": [1, 2, 3], "fraction": [1, 2, 3], "product": [1, 2, 3]}
#: the seed on which rates are searched, and the share of the tokens that a try is given
TUNE_SEED, TUNE_SHARE = 1000, 0.5
#: share of a run's tokens that a trial run on a single domain takes, of which a learnt graph needs one for each
PROBE_SHARE = 0.04
LENGTH, BATCH, POINTS, WATCHED, REPORTED = 128, 8, 5, 6, 16
MODEL = {"architecture": "llama", "hidden": 64, "layers": 2, "heads": 4, "context": LENGTH, "tokenizer": "bytes"}
#: the simulated world in which the mixing agent is trained, and how
WORLD: dict[str, Any] = {
    "trajectories": 400,
    "scale": [0.01, 0.05],
    "exponent": [0.25, 0.6],
    "floor": [0.5, 2.0],
    "forgetting": [0.0, 0.1],
    "mean": 0.5,
}
WHOLE = math.log(260)

#: how a teacher's fields follow from the texts
Fills = Literal["", "sizes", "roots", "difficulty", "agent", "graph", "free graph"]


@dataclass(frozen=True)
class Method:
    """What is compared.

    Args:
        teacher: of the mixture.
        examined: whether it goes by an exam of the domains, which it then pays for.
        fills: what of the texts its fields are filled with.
        objective: of the model.
        knobs: that the objective adds.
        about: what it is, for the report.
    """

    teacher: Any = "uniform"
    examined: bool = False
    fills: Fills = ""
    objective: Any = "next_token"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""


BURN_IN = {"focus": {"peak": 1, "schedule": {"sequence": {"pieces": [{"constant": {"level": 0}}, "constant"], "shares": [1, 19]}}}}
METHODS: dict[str, Method] = {
    "uniform": Method(about="every domain alike"),
    "proportional": Method({"skill_it": {"eta": 0.0}}, fills="sizes", about="shares in proportion to the characters of the whole corpora"),
    "skill_it, identity": Method("skill_it", True, about="every domain helps itself; defaults"),
    "skill_it, learnt graph": Method("skill_it", True, "graph", about="graph from trial runs on single domains, paid from the budget"),
    "missing_skills": Method("missing_skills", True, about="shares in proportion to the held-out losses"),
    "mixing_agent": Method("mixing_agent", True, "agent", about="trained on simulated runs beforehand"),
    "loss_reweighted": Method(
        objective={"loss_reweighted": {"r": 1.0}}, knobs=BURN_IN, about="uniform mixture; examples of a batch weighted by their losses"
    ),
    "easy_to_hard": Method({"easy_to_hard": {"until": 0.7}}, fills="difficulty", about="domains open by what zlib makes of them"),
    "root of size": Method({"skill_it": {"eta": 0.0}}, fills="roots", about="shares in proportion to the square root of the sizes"),
    "skill_it, free graph": Method("skill_it", True, "free graph", about="the same trial runs, not paid: what the graph itself is worth"),
    "hard_to_easy": Method({"easy_to_hard": {"until": 0.7, "reverse": True}}, fills="difficulty", about="the other way round"),
    "ranking": Method("ranking", fills="difficulty", about="what zlib finds hard counts less in the first half"),
}
#: methods of the catalog that have no place here, and why
ELSEWHERE = {
    "teachers/sec, dump, cures, pcl, gain, cyclical, lim, historical_variance, alp_gmm, covar_gmm, riac, reverse_starts":
        "go by rewards of answers, and text has none: on a mixture they stay at the shares that they begin with",
    "teachers/mbtl": "takes errors in [0, 1] and domains with a place in a space of tasks",
    "teachers/class_order": "teaches one class after the other, each for an equal piece",
    "teachers/floor": "wraps another teacher",
    "teachers/snapshot_starts, sub_instructions, random_point": "choose other things than domains",
}  # fmt: skip


@dataclass(frozen=True)
class Texts:
    """The domains as files, and what methods know of them.

    Args:
        folder: where ``<domain>.jsonl`` and ``agent.safetensors`` lie.
        digest: of all texts and of the agent's making.
        sizes: characters of the whole corpora; of the generated domain what has been generated.
        hardness: bytes that zlib needs for a byte.
        offline: seconds of processor time that the agent took.
    """

    folder: Path
    digest: str
    sizes: dict[str, int]
    hardness: dict[str, float]
    offline: float


def prepare(folder: Path) -> Texts:
    """Write the texts and train the agent, once."""
    told = folder / "texts.json"
    asked = [EDITION, DOMAINS, TEXT, DOCUMENT, REASONING, WORLD, POINTS]
    made = hashlib.blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()
    if told.is_file() and (known := json.loads(told.read_text(encoding="utf-8")))["made"] == made:
        return Texts(folder, known["digest"], known["sizes"], known["hardness"], known["offline"])
    folder.mkdir(parents=True, exist_ok=True)
    sizes, hardness, whole = {}, {}, hashlib.blake2b(made.encode(), digest_size=8)
    for name in DOMAINS:
        found = documents(name) if name in CORPUS_DOMAINS else list(_reasoning())
        sizes[name] = sum(len(document.text) for document in found)
        # spread over the corpus: neighbours are alike
        order = numpy_generator(0, f"bench/mixing/{name}").permutation(len(found))
        lines, total = [], 0
        for place in order:
            if total >= TEXT:
                break
            lines.append(found[place].text[:DOCUMENT])
            total += len(lines[-1])
        content = "".join(json.dumps({"text": line}) + "\n" for line in lines).encode()
        (folder / f"{name}.jsonl").write_bytes(content)
        whole.update(content)
        raw = "".join(lines).encode()
        hardness[name] = round(len(zlib.compress(raw, 9)) / len(raw), 4)
    whole.update(json.dumps([sizes, hardness]).encode())
    worked = time.process_time()
    trained().save(folder / "agent.safetensors")
    known = {"made": made, "digest": whole.hexdigest(), "sizes": sizes, "hardness": hardness, "offline": time.process_time() - worked}
    told.write_text(json.dumps(known), encoding="utf-8")
    return Texts(folder, known["digest"], sizes, hardness, known["offline"])


def _reasoning() -> Iterator[Document]:
    """Yield pages of 20 questions with their answers, of all tasks and levels in turn."""
    cells = [stream(task, level, split="train", seed=0, style="english") for task, levels in REASONING.items() for level in levels]
    total = 0
    for number in itertools.count():
        drawn = [next(cells[(20 * number + i) % len(cells)]) for i in range(20)]
        page = "".join(f"{problem.prompt.strip()}\nAnswer: {problem.answer}\n\n" for problem in drawn)
        total += len(page)
        yield Document(f"page {number:05d}", page)
        if total >= TEXT:
            return


def trained() -> Agent:
    """Return the mixing agent, trained on simulated runs of as many domains as there are, on losses of the size of a byte-level model's."""
    runs = []
    for number in range(WORLD["trajectories"]):
        rng = numpy_generator(0, "bench/mixing/world", number)
        curves = _fields(rng)
        run = curves.run((wandering if number % 3 else leaning)(rng), POINTS)
        floors = rng.uniform(*WORLD["floor"], len(DOMAINS))
        runs.append(Trajectory(run.mixtures, floors + (WHOLE - floors) * run.losses))
    return train_agent(runs, mean=WORLD["mean"])[0]


def _fields(rng: np.random.Generator) -> FieldCurves:
    """Return as many random fields as there are domains, none of which is known."""
    many = len(DOMAINS)
    scales = np.exp(rng.uniform(*np.log(WORLD["scale"]), many))
    parts = (scales, rng.uniform(*WORLD["exponent"], many), np.zeros(many), rng.uniform(*WORLD["forgetting"], many))
    return FieldCurves(*(tuple(part.tolist()) for part in parts))


def at_home(agent: Agent, worlds: int = 60) -> tuple[float, float]:
    """Return what the agent loses against even shares in simulated worlds that it has not seen: final mean and worst loss, less is better."""
    gaps = []
    for number in range(worlds):
        rng = numpy_generator(0, "bench/mixing/unseen", number)
        curves, floors = _fields(rng), rng.uniform(*WORLD["floor"], len(DOMAINS))

        def policy(losses: np.ndarray, mixtures: np.ndarray, progress: float, floors: np.ndarray = floors) -> np.ndarray:
            seen = floors + (WHOLE - floors) * losses
            before = [np.zeros(len(DOMAINS)), *mixtures]
            visits = [Visit(tuple(mixture), tuple(found)) for mixture, found in zip(before, seen.tolist(), strict=True)]
            return agent.act(state_of(visits, progress, agent.history))

        ends = [
            floors + (WHOLE - floors) * curves.run(one, POINTS).losses[-1] for one in (policy, still([1 / len(DOMAINS)] * len(DOMAINS)))
        ]
        gaps.append((ends[0].mean() - ends[1].mean(), ends[0].max() - ends[1].max()))
    mean, worst = np.mean(gaps, axis=0).tolist()
    return mean, worst


@dataclass(frozen=True)
class Job:
    """One run: ``probe`` (``method`` is a domain), ``tune`` or ``measure``, at a rate, with a seed, for so many tokens; of texts that it names."""

    kind: str
    method: str
    lr: float
    seed: int
    tokens: int
    digest: str

    @property
    def probes(self) -> tuple[Job, ...]:
        """Return the trial runs that a graph is learnt from."""
        if self.kind == "probe" or METHODS[self.method].fills not in ("graph", "free graph"):
            return ()
        return tuple(Job("probe", name, self.lr, self.seed, round(self.tokens * PROBE_SHARE), self.digest) for name in DOMAINS)

    @property
    def charged(self) -> float:
        """Return the share of the budget that trial runs take."""
        return PROBE_SHARE * len(DOMAINS) if self.kind != "probe" and METHODS[self.method].fills == "graph" else 0.0

    def recipe(self, texts: Texts, graph: Sequence[Sequence[float]] = ()) -> dict[str, Any]:
        """Return the run as plain values; ``graph`` is what trial runs showed."""
        domains = {
            name: {"text": {"path": str(texts.folder / f"{name}.jsonl"), "length": LENGTH, "held_out_share": 0.15}} for name in DOMAINS
        }
        watched = {"domain_losses": {"examples": WATCHED, "batch_size": WATCHED, "name": "watched", "part": [0.0, 0.5]}}
        reported = {"domain_losses": {"examples": REPORTED, "batch_size": REPORTED, "name": "held_out", "part": [0.5, 1.0]}}
        schedule = {"warmup": {"fraction": 0.05, "then": "linear"}}
        stage: dict[str, Any] = {"optimizer": "adamw", "batch_size": BATCH, "objective": "next_token"}
        stage["knobs"] = {"lr": {"peak": self.lr, "schedule": schedule}, "clip": 1.0}
        told = {"name": "mixing", "seed": self.seed, "threads": 1, "model": {"transformer": dict(MODEL)}, "stages": [stage]}
        if self.kind == "probe":
            stage["source"] = domains[self.method]
            watched["domain_losses"]["source"] = {"mixture": {"domains": domains}}
            # the model before is the same for all of them: one measures it
            evaluate = {"start": self.method == DOMAINS[0], "exams": [watched]}
            return told | {"budget": f"{self.tokens} tokens", "evaluate": evaluate}
        method = METHODS[self.method]
        stage["source"] = {"mixture": {"domains": domains, "watch": "watched", **self._chosen(texts, graph)}}
        stage["objective"] = method.objective
        stage["knobs"] |= method.knobs
        exams = [watched, reported] if method.examined else [reported]
        tokens = round(self.tokens * (1 - self.charged))
        return told | {"budget": f"{tokens} tokens", "evaluate": {"start": True, "exams": exams, "every": 1 / POINTS}}

    def _chosen(self, texts: Texts, graph: Sequence[Sequence[float]]) -> dict[str, Any]:
        teacher, fills = METHODS[self.method].teacher, METHODS[self.method].fills
        if fills == "difficulty":
            return {"teacher": teacher, "difficulty": texts.hardness}
        if fills == "agent":
            return {"teacher": {teacher: {"agent": str(texts.folder / "agent.safetensors")}}}
        if fills in ("sizes", "roots"):
            power = 1.0 if fills == "sizes" else 0.5
            return {"teacher": {"skill_it": {**teacher["skill_it"], "prior": {name: size**power for name, size in texts.sizes.items()}}}}
        if graph:
            return {"teacher": {teacher: {"graph": [list(row) for row in graph]}}}
        return {"teacher": teacher}

    @cached_property
    def key(self) -> str:
        """Return the name of the run: whatever decides its outcome goes into it. Of how sizes fill a field the method's name tells."""
        nowhere = Texts(Path("texts"), self.digest, dict.fromkeys(DOMAINS, 1), dict.fromkeys(DOMAINS, 0.5), 0.0)
        parts = [EDITION, self.digest, [job.key for job in self.probes], self.recipe(nowhere)]
        digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()
        return f"{self.kind} {self.method} {self.lr:g} {self.seed} {self.tokens} {digest}"


def execute(job: Job, texts: Texts, graph: Sequence[Sequence[float]] = ()) -> dict[str, Any]:
    """Spend a job's budget and return what it came to; a failure is an outcome."""
    worked = time.process_time()
    folder = Path(tempfile.mkdtemp(prefix="outlay-bench-"))
    row: dict[str, Any] = {"key": job.key, "losses": [], "curve": [], "read": {}, "spent": {}, "accounts": {}, "outcome": "ok", "why": ""}
    try:
        result = outlay.run(outlay.load_recipe(job.recipe(texts, graph)), folder / "run")
        if result.ended_by == "signal":
            raise KeyboardInterrupt
        lines = [line for line in read_journal(folder / "run") if line["kind"] == "evaluation"]
        prefix = "watched" if job.kind == "probe" else "held_out"
        row["curve"] = [(line["progress"], [line["metrics"][f"{prefix}/{name}"] for name in DOMAINS]) for line in lines]
        row["losses"] = [result.metrics[f"{prefix}/{name}"] for name in DOMAINS]
        row |= {"spent": result.spent, "accounts": result.accounts}
        row["read"] = read_of(folder / "run")
        if not all(map(math.isfinite, row["losses"])):
            row |= {"outcome": "error", "why": f"the run ended with {row['losses']}"}
    except Exception as error:  # one run that fails says nothing about the others
        row |= {"outcome": "error", "why": f"{type(error).__name__}: {error}"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return row | {"cpu": time.process_time() - worked}


def read_of(folder: Path) -> dict[str, int]:
    """Return how many examples of each domain a run has read, from its last checkpoint; nothing where it had one domain."""
    last = max((folder / "checkpoints").glob("step-*"))
    waiting: list[Any] = [json.loads((last / "state.json").read_text(encoding="utf-8"))]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict) and set(found.get("domains", ())) == set(DOMAINS):
            return {name: int(found["domains"][name]["cursor"]) for name in DOMAINS}
        waiting += found.values() if isinstance(found, dict) else found if isinstance(found, list) else []
    return {}


@dataclass(frozen=True)
class Study:
    """What is compared, and the store of what has been run."""

    store: Store
    texts: Texts
    methods: tuple[str, ...]
    seeds: int
    tokens: int
    rates: tuple[float, ...]
    _known: dict[Job, Job] = field(default_factory=dict)

    def job(self, kind: str, method: str, lr: float, seed: int, tokens: int) -> Job:
        """Return the one job that is described so; its name is worked out once."""
        job = Job(kind, method, lr, seed, tokens, self.texts.digest)
        return self._known.setdefault(job, job)

    def tries(self, method: str) -> list[Job]:
        """Return the search for a method's rate."""
        return [self.job("tune", method, lr, TUNE_SEED, round(self.tokens * TUNE_SHARE)) for lr in self.rates]

    def measured(self, method: str) -> list[Job]:
        """Return a method's runs at the rate that was found; none while it is not known."""
        lr = self.rate(method)
        return [self.job("measure", method, lr, seed, self.tokens) for seed in range(1, self.seeds + 1)] if lr is not None else []

    def rate(self, method: str) -> float | None:
        """Return the rate with the smallest area under the curve; None while tries are missing. Among equals the smallest."""
        jobs = self.tries(method)
        return min(jobs, key=self.area).lr if all(job.key in self.store for job in jobs) else None

    def curve(self, job: Job) -> list[tuple[float, list[float]]]:
        """Return (share of the tokens spent, held-out loss of every domain); a failed run stays where an untaught model is."""
        row = self.store[job.key]
        if row["outcome"] != "ok":
            return [(0.0, [WHOLE] * len(DOMAINS)), (1.0, [WHOLE] * len(DOMAINS))]
        (_, first), *inside, (_, last) = row["curve"]
        shifted = [(job.charged + (1 - job.charged) * share, losses) for share, losses in inside]
        # while trial runs are paid, the model stays what it was
        return [(0.0, first), *([(job.charged, first)] if job.charged else []), *shifted, (1.0, last)]

    def area(self, job: Job) -> float:
        """Return the area under the curve of the domains' mean: the mean loss while the tokens were spent."""
        curve = self.curve(job)
        return math.fsum((b[0] - a[0]) * (statistics.fmean(a[1]) + statistics.fmean(b[1])) / 2 for a, b in itertools.pairwise(curve))

    def mean(self, job: Job) -> float:
        """Return the mean over domains at the end."""
        return statistics.fmean(self.curve(job)[-1][1])

    def worst(self, job: Job) -> float:
        """Return the largest of the domains' losses at the end."""
        return max(self.curve(job)[-1][1])

    def graph(self, job: Job) -> list[list[float]]:
        """Return the graph that a job's trial runs show; the diagonal alone where one of them failed."""
        rows = [self.store[probe.key] for probe in job.probes]
        if any(row["outcome"] != "ok" for row in rows):
            return np.eye(len(DOMAINS)).tolist()
        before = np.array(rows[0]["curve"][0][1])
        return learn_graph_from_drops(before, np.array([row["losses"] for row in rows])).tolist()

    def missing(self) -> Iterator[Job]:
        """Yield every job that can be run now, the baseline's first."""
        for method in self.methods:
            for job in [*self.tries(method), *self.measured(method)]:
                if job.key not in self.store:
                    probes = [self.job("probe", one.method, one.lr, one.seed, one.tokens) for one in job.probes]
                    absent = [probe for probe in probes if probe.key not in self.store]
                    yield from absent or [job]

    def complete(self, method: str) -> list[Job]:
        """Return a method's measured runs once all of them are there."""
        jobs = self.measured(method)
        return jobs if jobs and all(job.key in self.store for job in jobs) else []


def spend(study: Study, processes: int, seconds: float) -> None:
    """Run what is missing, ``processes`` at a time; none is begun after so many seconds."""
    began = time.monotonic()
    for method in study.methods:  # wrong recipes cost nothing
        outlay.load_recipe(study.tries(method)[0].recipe(study.texts))
    running: dict[Future[dict[str, Any]], Job] = {}
    done, whole = 0, len(study.methods) * (len(study.rates) + study.seeds)
    with one_thread_each(), workers(processes) as pool:
        while True:
            for job in study.missing():
                if len(running) >= processes or time.monotonic() - began > seconds:
                    break
                if job not in running.values():
                    graph = study.graph(job) if job.probes else ()
                    running[pool.submit(execute, job, study.texts, graph)] = job
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job, row = running.pop(future), future.result()
                study.store.add(row)
                done += job.kind != "probe"
                told = f"{statistics.fmean(row['losses']):.3f}" if row["outcome"] == "ok" else row["why"]
                print(f"[{done} of {whole} at most] {job.key}: {told} ({row['cpu']:.0f} s)", file=sys.stderr, flush=True)


MEASURES = ("area", "mean", "worst")


def differences(study: Study, method: str, of: str, base: str = "uniform") -> Interval | None:
    """Return the paired difference of a measure between a method and another; below 0 is better."""
    mine, other = study.complete(method), study.complete(base)
    if len(mine) < 2 or len(other) != len(mine):
        return None
    value = getattr(study, of)
    return mean_interval([value(a) - value(b) for a, b in zip(mine, other, strict=True)])


def report(study: Study, command: str) -> str:
    """Return everything that has been found so far as Markdown."""
    done = sorted((name for name in study.methods if study.complete(name)), key=lambda name: _mean(study, name, "mean"))
    parts = ["# Mixtures of real domains at equal tokens\n", _about(study, command), _verdict(study, done)]
    rows = [
        "| method | " + " | ".join(f"{of} | {of} - uniform" for of in MEASURES) + " | rate |",
        "|---|" + "---|" * (2 * len(MEASURES) + 1),
    ]
    for name in done:
        cells = [name]
        for of in MEASURES:
            gap = differences(study, name, of)
            cells += [f"{_mean(study, name, of):.4f}", "" if gap is None or name == "uniform" else _signed(gap)]
        rows.append("| " + " | ".join([*cells, f"{study.rate(name):g}"]) + " |")
    parts.append(
        "## Losses\n\nNats a byte, smaller is better; in order of the final mean. Bold: the whole interval lies on one side of 0.\n\n"
        + "\n".join(rows) + "\n"
    )  # fmt: skip
    rows = ["| method | " + " | ".join(f"{name} loss | read" for name in DOMAINS) + " |", "|---|" + "---|" * (2 * len(DOMAINS))]
    for name in done:
        found = [study.store[job.key] for job in study.complete(name) if study.store[job.key]["outcome"] == "ok"]
        cells = [name]
        for place, domain in enumerate(DOMAINS):
            shares = [row["read"][domain] / sum(row["read"].values()) for row in found if row["read"]]
            cells += [f"{statistics.fmean(row['losses'][place] for row in found):.3f}" if found else "", f"{statistics.fmean(shares):.0%}"
                      if shares else ""]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    parts.append("## Domains\n\nFinal held-out loss, and the share of what was trained on.\n\n" + "\n".join(rows) + "\n")
    parts += [_tokens(study, done), _graph(study)]
    failed = [study.store[job.key] for name in study.methods for job in [*study.tries(name), *study.measured(name)]
              if job.key in study.store and study.store[job.key]["outcome"] != "ok"]  # fmt: skip
    if failed:
        text = "\n".join(f"- {row['key']}: {row['why']}" for row in failed)
        parts.append(f"## Runs that failed\n\nThey count as a model that has learnt nothing.\n\n{text}\n")
    parts.append("## Not here\n\n" + "\n".join(f"- `{name}`: {why}." for name, why in ELSEWHERE.items()) + "\n")
    return "\n".join(part for part in parts if part)


def _mean(study: Study, method: str, of: str) -> float:
    return statistics.fmean(map(getattr(study, of), study.complete(method)))


def _signed(gap: Interval) -> str:
    text = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    return f"**{text}**" if gap.high < 0 or gap.low > 0 else text


def _verdict(study: Study, done: Sequence[str]) -> str:
    others = [name for name in done if name != "uniform"]
    if "uniform" not in done or not others:
        return ""
    lines = ["## Verdict, against uniform\n"]
    for of, told in (
        ("mean", "final mean over domains"),
        ("worst", "worst domain at the end"),
        ("area", "area under the curve of the mean"),
    ):
        gaps = {name: gap for name in others if (gap := differences(study, name, of)) is not None}
        better = [name for name, gap in gaps.items() if gap.high < 0]
        worse = [name for name, gap in gaps.items() if gap.low > 0]
        open_ = [name for name in gaps if name not in better and name not in worse]
        groups = [f"{word}: {'; '.join(names) or 'none'}" for word, names in (("better", better), ("worse", worse), ("undecided", open_))]
        lines.append(f"- **{told[0].upper()}{told[1:]}.** " + ". ".join(group[0].upper() + group[1:] for group in groups) + ".")
    paid, free = "skill_it, learnt graph", "skill_it, free graph"
    for name, base, told in (
        (paid, "skill_it, identity", "A learnt graph that is paid for, against the identity"),
        (free, "skill_it, identity", "The same graph for nothing, against the identity"),
    ):
        gap = differences(study, name, "mean", base) if name in done and base in done else None
        if gap is not None:
            lines.append(f"- **{told}**, final mean: {_signed(gap)}.")
    return "\n".join(lines) + "\n"


def _tokens(study: Study, done: Sequence[str]) -> str:
    rows = ["| method | trained on | exams | trial runs | whole | CPU seconds |", "|---|---|---|---|---|---|"]
    for name in done:
        jobs = study.complete(name)
        found = [study.store[job.key] for job in jobs if study.store[job.key]["outcome"] == "ok"]
        if not found:
            continue
        train, exams = (
            statistics.fmean(row["accounts"].get(account, {}).get("tokens", 0.0) for row in found) for account in ("train", "eval")
        )
        trial = study.tokens * jobs[0].charged
        spent = statistics.fmean(row["spent"]["tokens"] for row in found) + trial
        rows.append(
            f"| {name} | {train:,.0f} | {exams:,.0f} | {trial:,.0f} | {spent:,.0f} | {statistics.fmean(row['cpu'] for row in found):.1f} |"
        )
    mean, worst = at_home(Agent.load(study.texts.folder / "agent.safetensors"))
    offline = f"""
The mixing agent's training costs no token: {WORLD["trajectories"]} simulated runs and its learning took {
        study.texts.offline:.0f} seconds of
processor time, once for all runs. It was trained with the defaults of `train_agent`, but rewarded half by the mean and half by the worst. What it is
taught on is made up, not fitted to these texts: fields whose losses are power laws of what was read of them (scales {_range("scale")} of
a fifth of the budget, exponents {_range("exponent")}, floors {_range("floor")} nats, forgetting {_range("forgetting")} a step).
On 60 such worlds that it has not seen, it ends {_apart(mean)} even shares in the mean and {_apart(worst)} in the worst{
        ": it is an agent that has not learnt its task, and its row says nothing about one that has" if mean > 0 < worst else ""
    }.
"""
    return "## Tokens\n\nOf one measured run, on average.\n\n" + "\n".join(rows) + "\n" + offline


def _apart(gap: float) -> str:
    return f"{abs(gap):.2f} nats {'above' if gap > 0 else 'below'}"


def _range(name: str) -> str:
    low, high = WORLD[name]
    return f"{low:g} to {high:g}"


def _graph(study: Study) -> str:
    jobs = study.complete("skill_it, learnt graph") if "skill_it, learnt graph" in study.methods else []
    if not jobs:
        return ""
    graph = np.mean([study.graph(job) for job in jobs], axis=0)
    rows = ["| trained on | " + " | ".join(DOMAINS) + " |", "|---|" + "---|" * len(DOMAINS)]
    rows += [f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |" for name, row in zip(DOMAINS, graph.tolist(), strict=True)]
    return (
        "## The learnt graph\n\nShare of each domain's loss that a trial run on one took away, mean over seeds.\n\n"
        + "\n".join(rows)
        + "\n"
    )


def _about(study: Study, command: str) -> str:
    jobs = [job for name in study.methods for job in [*study.tries(name), *study.measured(name)]]
    probes = [probe for job in jobs for probe in job.probes]
    rows = {job.key: study.store[job.key] for job in [*jobs, *probes] if job.key in study.store}
    hours = math.fsum(row["cpu"] for row in rows.values()) / 3600
    domains = "\n".join(
        f"    - `{name}`: {CORPORA[name].title if name in CORPORA else 'questions of reasoning-gym with their answers, generated'};"
        f" {study.texts.sizes[name]:,} characters, zlib needs {study.texts.hardness[name]:.2f} bytes a byte"
        for name in DOMAINS
    )
    waits = {name: "" if study.complete(name) else " (not run yet)" for name in study.methods}
    about = "\n".join(f"    - `{name}`: {METHODS[name].about}{waits[name]}" for name in study.methods)
    complete = sum(bool(study.complete(name)) for name in study.methods)
    return f"""Does choosing which domain a small language model reads next lower its held-out losses? {complete} of {len(study.methods)} methods so far,
{hours:.2f} hours of processor time. Everything here is printed by

```bash
{command}
```

- **Domains**, {len(DOMAINS)}, of which {TEXT:,} characters each are drawn over the whole corpus, 15 % of the documents held out:

{domains}

- **Methods**:

{about}

- **Model.** A byte-level Llama of {MODEL["layers"]} layers of {MODEL["hidden"]}, from scratch; blocks of {LENGTH}, {BATCH} an update, AdamW, warm-up of
  5 %, then linear to zero.
- **Budget.** {study.tokens:,} tokens for every method, and everything is paid from it: the exam that is reported ({REPORTED} blocks a domain, at
  {POINTS + 1} points), the exam that a teacher goes by ({WATCHED} other blocks a domain, as often), and the trial runs of a learnt graph
  ({len(DOMAINS)} runs of {PROBE_SHARE:.0%} each, for every seed). No teacher sees what is reported.
- **Rates.** {", ".join(f"{rate:g}" for rate in study.rates)}, each tried by every method with {TUNE_SHARE:.0%} of the tokens on a seed that is not
  measured; the smallest area decides. These tries are not charged to anyone.
- **Measured.** Held-out loss of each domain: their mean and the worst at the end, and the *area* under the curve of the mean over the tokens spent.
- **Intervals**, 95 %: Student's t over {study.seeds} seeds, paired with uniform of the same seed. {max(complete - 1, 0)} comparisons, with no
  correction for their number.
"""


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", type=_listed, default=list(METHODS), help="names between semicolons")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=600_000, help="budget of every run")
    parser.add_argument("--rates", type=lambda text: [float(part) for part in text.split(",")], default=[7e-4, 2e-3, 6e-3])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after so long; the next call goes on")
    parser.add_argument("--store", type=Path, default=Path("runs/mixing"))
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    parser.add_argument("--show", action="store_true", help="run nothing, print what the store holds")
    parser.add_argument("--out", type=Path, help="write the tables there as well")
    asked = parser.parse_args(arguments)
    try:
        for name in asked.methods:
            if name not in METHODS:
                raise InputError(f"there is no {name!r}{nearest(name, METHODS)}; accepted: {'; '.join(METHODS)}")
    except InputError as error:
        parser.error(str(error))
    methods = tuple(dict.fromkeys(["uniform", *asked.methods]))
    store = Store(asked.store, retry=asked.retry)
    study = Study(store, prepare(asked.store.absolute() / "texts"), methods, asked.seeds, asked.tokens, tuple(sorted(asked.rates)))
    if not asked.show:
        spend(study, asked.workers, asked.seconds)
    words = list(sys.argv[1:] if arguments is None else arguments)
    text = report(study, " ".join(["python bench/mixing.py", *words]))
    print(text)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
