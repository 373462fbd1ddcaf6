"""Every teacher, allocator, estimator and repair of the catalog that can work on the toy policy, at equal generated rollouts.

    python bench/toy_curricula.py [--store runs/toy-curricula] [--out docs/results/toy-curricula.md]

The toy is ``outlay.testing.toy_policy``. Each method runs with GRPO's and with ReMax's advantages in two landscapes: with steps of any length, and
with steps of bounded length. Learning rates are tuned for every method by the same tries on seeds that are not measured; then
ten seeds are measured at the method's own best rate and at the rate of plain uniform sampling. Every batch of runs is a line of the store.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import outlay
from outlay.bench import Store
from outlay.bench.running import one_thread_each, workers
from outlay.bench.statistics import Interval, paired_losses
from outlay.catalog import methods_of

#: part of every key; raised when runs are no longer what they were
EDITION = 1
BASE = "uniform"
TUNE_SEEDS = tuple(range(1000, 1003))
OBJECTIVES = ("grpo", "remax")
ROLLOUTS = 25_600


@dataclass(frozen=True)
class Landscape:
    """Where methods are compared.

    Args:
        name: in tables.
        about: what it is, in a sentence.
        fields: of ``run_toy``.
        rates: that are tried.
        same: the rate at which all are compared; None for the best of uniform sampling.
        objectives: whose advantages are tried.
    """

    name: str
    about: str
    fields: Mapping[str, float]
    rates: tuple[float, ...]
    same: float | None = None
    objectives: tuple[str, ...] = OBJECTIVES


LANDSCAPES = (
    Landscape(
        "free", "nothing bounds a step, so that a larger rate is better for everyone; all are compared at the rate 4", {}, (4, 16, 64), 4
    ),
    Landscape(
        "bounded", "no update is longer than 0.25, as under gradient clipping or a trust region: nobody wins by longer steps", {"limit": 0.25},
        (2, 4, 8, 16, 32),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Entrant:
    """What is compared: parts of ``run_toy`` as catalog names with fields, and which arms the teacher has."""

    name: str
    kind: str
    teacher: Any = BASE
    over: str = "prompts"
    allocator: Any = None
    estimator: Any = None
    repair: Any = None

    @property
    def parts(self) -> dict[str, Any]:
        """Return what goes into a key."""
        found = {
            "teacher": self.teacher,
            "over": self.over,
            "allocator": self.allocator,
            "estimator": self.estimator,
            "repair": self.repair,
        }
        return {name: value for name, value in found.items() if value is not None}


#: estimators by label: an arm's latest answers, those of its level, and two that learn from features
LEVELS = "category_average"
CONTEXT = {"in_context": {"context": 128}}
#: which levels share features, and how much: what a perfectly known graph of skills would say
GRAPH = [[1.0 if i == j else 0.7 / 1.49 if abs(i - j) == 1 else 0.0 for j in range(5)] for i in range(5)]
PROTOTYPES = [[1.0 if i == j else 0.7 if j == i - 1 else 0.0 for j in range(5)] for i in range(5)]

#: teacher -> how it is entered; a teacher of the catalog that is neither here nor in ``ELSEWHERE`` is entered over prompts with its defaults
TEACHERS: dict[str, list[Entrant]] = {
    "uniform": [Entrant(BASE, "teacher"), Entrant("uniform over levels", "teacher", over="categories")],
    "sec": [
        Entrant("sec", "teacher", "sec", "categories"),
        Entrant("sec, tau 0.2", "teacher", {"sec": {"tau": 0.2}}, "categories"),
    ],
    "dump": [Entrant("dump", "teacher", "dump", "categories")],
    "pcl": [
        Entrant("pcl, value network", "teacher", "pcl", estimator="value_network"),
        Entrant("pcl, value network at lr 0.1", "teacher", "pcl", estimator={"value_network": {"lr": 0.1}}),
        Entrant("pcl, in context", "teacher", "pcl", estimator=CONTEXT),
        Entrant("pcl, windowed", "teacher", "pcl"),
    ],
    "cures": [
        Entrant("cures, beta", "teacher", "cures", estimator="beta"),
        Entrant("cures over levels", "teacher", "cures", "categories", estimator="category_average"),
    ],
    "gain": [Entrant("gain, lengths for 600", "teacher", {"gain": {"step": 40.0, "sigma": 80.0, "most": 80.0}})],
    "lim": [Entrant("lim", "teacher", "lim")],
    "historical_variance": [Entrant("historical_variance, 16 kept", "teacher", {"historical_variance": {"top": 16}})],
    "cyclical": [Entrant("cyclical", "teacher", "cyclical")],
    "easy_to_hard": [
        Entrant("easy_to_hard", "teacher", "easy_to_hard", "categories"),
        Entrant("easy_to_hard, one level", "teacher", {"easy_to_hard": {"width": 1}}, "categories"),
        Entrant("easy_to_hard, by success", "teacher", {"easy_to_hard": {"advance": 0.7}}, "categories"),
        Entrant("hard to easy, one level", "teacher", {"easy_to_hard": {"width": 1, "reverse": True}}, "categories"),
    ],
    "floor": [Entrant("floor under dump", "teacher", {"floor": {"teacher": "dump"}}, "categories")],
    "ranking": [Entrant("ranking", "teacher", "ranking"), Entrant("ranking, hard first", "teacher", {"ranking": {"anti": True}})],
    "alp_gmm": [Entrant("alp_gmm, 4 parts at most", "teacher", {"alp_gmm": {"most": 4}})],
    "covar_gmm": [Entrant("covar_gmm, 4 parts at most", "teacher", {"covar_gmm": {"most": 4}})],
    "class_order": [Entrant("class_order", "teacher", {"class_order": {"prototypes": PROTOTYPES}}, "categories")],
    "mbtl": [Entrant("mbtl", "teacher", {"mbtl": {"pieces": 5}}, "categories")],
    "skill_it": [Entrant("skill_it, known graph", "teacher", {"skill_it": {"graph": GRAPH}}, "categories")],
    "missing_skills": [Entrant("missing_skills", "teacher", "missing_skills", "categories")],
}

#: allocator -> fields for 8 rollouts a prompt
ALLOCATORS: dict[str, dict[str, Any]] = {"gvm": {"probe": 4}, "cures": {"probe": 4}}

REPAIRS: dict[str, list[Entrant]] = {
    "refill": [
        Entrant("refill, 3 rounds", "repair", repair="refill"),
        Entrant("refill, 10 rounds", "repair", repair={"refill": {"rounds": 10}}),
        Entrant("refill 0.25 to 0.75, 10 rounds", "repair", repair={"refill": {"low": 0.25, "high": 0.75, "rounds": 10}}),
    ],
    "replay": [
        Entrant("replay", "repair", repair="replay"),
        Entrant("replay, 1024 stored", "repair", repair={"replay": {"capacity": 1024}}),
    ],
    "drop": [Entrant("drop", "repair", repair="drop")],
    "easier": [
        Entrant("easier", "repair", repair="easier"),
        Entrant("easier, 4 steps", "repair", repair={"easier": {"steps": 4}}),
    ],
}

COMBINATIONS = [
    Entrant("dump + replay", "combination", "dump", "categories", repair="replay"),
    Entrant("pcl + replay", "combination", "pcl", estimator=CONTEXT, repair="replay"),
    Entrant("knapsack + replay", "combination", allocator="knapsack", estimator=LEVELS, repair="replay"),
    Entrant("dump + knapsack", "combination", "dump", "categories", allocator="knapsack", estimator=LEVELS),
    Entrant("dump + knapsack + replay", "combination", "dump", "categories", allocator="knapsack", estimator=LEVELS, repair="replay"),
    Entrant("pcl + knapsack", "combination", "pcl", allocator="knapsack", estimator=CONTEXT),
    Entrant("dump + easier", "combination", "dump", "categories", repair="easier"),
]

#: family/method -> why it is not here
ELSEWHERE: dict[str, str] = {
    "teachers/mixing_agent": "needs an agent trained beforehand on the losses of other runs",
    "teachers/reverse_starts": "starts from inside an episode; the toy's episodes have one step",
    "teachers/snapshot_starts": "starts from saved states of an environment; the toy has none",
    "teachers/sub_instructions": "takes parts of an instruction; the toy's prompts have none",
    "allocators/proportional": "divides by sizes, and prompts have none: it would be uniform",
    "repairs/scaffold": "needs hints of several strengths, which the toy's prompts do not have",
    "repairs/hint_prefix": "needs a reference solution to show the beginning of",
    "repairs/guide": "needs a hint, and answers of several tokens: the ratio of a whole answer vanishes",
    "repairs/tree": "branches within an answer; the toy's answers have one token",
    "repairs/expert_failures": "needs another's failed answers to begin from",
}


def entrants() -> tuple[list[Entrant], dict[str, str]]:
    """Return all that are compared, plain uniform sampling first, and family/method -> why it is not."""
    found: list[Entrant] = []
    without = {name: why for name, why in ELSEWHERE.items() if name.partition("/")[2] in methods_of(name.partition("/")[0])}
    for name in sorted(methods_of("teachers"), key=lambda name: (name != BASE, name)):
        if f"teachers/{name}" not in ELSEWHERE:
            found += TEACHERS.get(name) or [Entrant(name, "teacher", name)]
    for name in sorted(methods_of("allocators")):
        allocator = {name: ALLOCATORS.get(name, {})}
        if f"allocators/{name}" in ELSEWHERE or name == BASE:
            continue
        if "probe" in allocator[name]:  # what it divides by comes from its own probe
            found.append(Entrant(f"{name} of a probe of 4", "allocator", allocator=allocator))
        else:
            found += [Entrant(f"{name}, {label}", "allocator", allocator=allocator, estimator=estimator) for label, estimator in GUESSES]
    for name in sorted(methods_of("estimators")):
        estimator = CONTEXT if name in CONTEXT else name
        if name not in ("windowed", LEVELS):  # those are among the allocators
            found.append(Entrant(f"knapsack, {name}", "estimator", allocator="knapsack", estimator=estimator))
        if name not in ("windowed", "value_network", *CONTEXT):  # and these among the teachers
            found.append(Entrant(f"pcl, {name}", "estimator", "pcl", estimator=estimator))
    for name in sorted(methods_of("repairs")):
        if f"repairs/{name}" not in ELSEWHERE:
            found += REPAIRS.get(name) or [Entrant(name, "repair", repair=name)]
    return found + COMBINATIONS, without


#: what allocators that do not probe divide by
GUESSES: list[tuple[str, Any]] = [("windowed", None), ("by level", LEVELS)]


# ---- running ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """Runs of one entrant at one rate."""

    entrant: Entrant
    landscape: Landscape
    objective: str
    rate: float
    seeds: tuple[int, ...]

    @functools.cached_property
    def key(self) -> str:
        """Return what the runs hang on."""
        told = [EDITION, self.entrant.parts, dict(self.landscape.fields), self.objective, self.rate, self.seeds, ROLLOUTS]
        return json.dumps(told, sort_keys=True)


def built(family: str, told: Any) -> Any:
    """Return the object of a catalog name, or of {name: fields}; None for None."""
    if told is None:
        return None
    (name, fields), *_ = told.items() if isinstance(told, Mapping) else [(told, {})]
    return outlay.make(f"{family}/{name}", **fields)


def execute(job: Job) -> dict[str, Any]:
    """Run it and return the store's line."""
    from outlay.testing.toy_policy import run_toy

    one, began = job.entrant, time.process_time()
    row: dict[str, Any] = {"key": job.key, "name": one.name, "runs": [], "why": ""}
    try:
        for seed in job.seeds:
            found = run_toy(
                built("teachers", one.teacher), built("allocators", one.allocator), estimator=built("estimators", one.estimator),
                repair=built("repairs", one.repair), over=one.over, objective=job.objective, lr=job.rate, seed=seed, rollouts=ROLLOUTS,
                **job.landscape.fields,
            )  # fmt: skip
            row["runs"].append({
                "area": found.area, "final": found.final, "hard": found.final_hard, "norm": found.norm, "informative": found.informative,
                "updates": found.updates, "trained": found.trained, "spent": found.spent.astype(int).tolist(),
                "success": [round(value, 6) for value in found.success.tolist()],
            })  # fmt: skip
    except Exception as error:  # one method that fails says nothing about the others
        row |= {"runs": [], "why": f"{type(error).__name__}: {error}"[:300]}
    return row | {"cpu": time.process_time() - began}


@dataclass
class Study:
    """What is compared, and what has been found."""

    store: Store
    entrants: list[Entrant]
    seeds: tuple[int, ...]
    processes: int

    @property
    def places(self) -> list[tuple[Landscape, str]]:
        """Return every landscape with every objective."""
        return [(landscape, objective) for landscape in LANDSCAPES for objective in landscape.objectives]

    def spend(self) -> None:
        """Tune, then measure."""
        with one_thread_each(), workers(self.processes) as pool:
            for what, jobs in (("tuning", self.tries), ("measuring", self.measured)):
                waiting = {job.key: job for job in jobs() if job.key not in self.store}
                pending: dict[Future[dict[str, Any]], Job] = {pool.submit(execute, job): job for job in waiting.values()}
                began = time.monotonic()
                for done, future in enumerate(as_completed(pending), 1):
                    row = future.result()
                    self.store.add(row)
                    if row["why"]:
                        print(f"FAILED {row['name']}: {row['why']}", file=sys.stderr)
                    if done % 50 == 0 or done == len(pending):
                        print(f"{what}: {done}/{len(pending)} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    def tries(self) -> list[Job]:
        """Return the jobs of all searches."""
        return [
            Job(one, landscape, objective, rate, TUNE_SEEDS)
            for one in self.entrants
            for landscape, objective in self.places
            for rate in landscape.rates
        ]

    def measured(self) -> list[Job]:
        """Return the measured jobs."""
        return [self.job(one, *place, own) for one in self.entrants for place in self.places for own in (False, True)]

    def job(self, one: Entrant, landscape: Landscape, objective: str, own: bool) -> Job:
        """Return a measured job: at its own best rate, or at that at which all are compared."""
        return Job(one, landscape, objective, self.rate(one if own else self.entrants[0], landscape, objective, own), self.seeds)

    def rate(self, one: Entrant, landscape: Landscape, objective: str, own: bool) -> float:
        """Return the rate of largest area on the seeds for tuning, the smallest of equal ones; or the landscape's."""
        if not own and landscape.same is not None:
            return landscape.same
        return max(landscape.rates, key=lambda rate: self.tuned(one, landscape, objective, rate))

    def tuned(self, one: Entrant, landscape: Landscape, objective: str, rate: float, what: str = "area") -> float:
        """Return a mean over the seeds for tuning; -1 where runs failed."""
        runs = self.store[Job(one, landscape, objective, rate, TUNE_SEEDS).key]["runs"]
        return statistics.fmean(run[what] for run in runs) if runs else -1.0

    def runs(self, one: Entrant, landscape: Landscape, objective: str, own: bool) -> list[dict[str, Any]]:
        """Return what was measured, one for each seed; empty where it failed."""
        return list(self.store[self.job(one, landscape, objective, own).key]["runs"])

    def against(self, one: Entrant, landscape: Landscape, objective: str, own: bool, what: str = "area") -> Interval:
        """Return the paired difference to uniform sampling with the same objective."""
        mine, base = (self.runs(who, landscape, objective, own) for who in (one, self.entrants[0]))
        return paired_losses(*({seed: run[what] for seed, run in zip(self.seeds, runs, strict=bool(runs))} for runs in (mine, base)))

    def shares(self, one: Entrant, landscape: Landscape, objective: str, own: bool) -> list[float]:
        """Return, for each seed, the share of the rollouts after which the final success of uniform GRPO was first reached; infinite where never."""
        goals = [run["success"][-1] for run in self.runs(self.entrants[0], landscape, "grpo", own)]
        found = []
        for run, goal in zip(self.runs(one, landscape, objective, own), goals, strict=False):
            there = (spent for spent, success in zip(run["spent"], run["success"], strict=True) if success >= goal)
            found.append(next(there, math.inf) / ROLLOUTS)
        return found


# ---- what it came to -------------------------------------------------------------------------------------------------------------------


def verdict(found: Interval) -> str:
    """Return better, worse or undecided."""
    return "better" if found.low > 0 else "worse" if found.high < 0 else "undecided"


def told(found: Interval) -> str:
    """Return a difference in a cell: bold where it is better, with a word where it is worse."""
    if math.isnan(found.mean):
        return "failed"
    if found.low == found.high == 0:
        return "the same"
    word = verdict(found)
    return f"**{found.mean:+.3f}**" if word == "better" else f"{found.mean:+.3f}" + (" worse" if word == "worse" else "")


def half_time(shares: Sequence[float]) -> str:
    """Return the median share, and how many seeds got there where not all did."""
    if not shares:
        return "failed"
    reached, median = sum(map(math.isfinite, shares)), statistics.median(shares)
    text = f"{median:.2f}" if math.isfinite(median) else "not reached"
    return text if reached == len(shares) else f"{text} ({reached} of {len(shares)})"


def report(study: Study, without: Mapping[str, str], command: str) -> str:
    """Return all of it as Markdown."""
    parts = [_about(study, command), _headline(study), _overview(study), _rates(study)]
    parts += [_details(study, landscape, objective) for landscape, objective in study.places]
    lines = [f"- `{name}`: {why}." for name, why in sorted(without.items())]
    parts.append("## Not here\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _about(study: Study, command: str) -> str:
    jobs = {job.key for job in [*study.tries(), *study.measured()]}
    rows = [study.store[key] for key in jobs]
    runs, cpu = sum(len(row["runs"]) for row in rows), math.fsum(row["cpu"] for row in rows)
    scapes = "\n".join(f"    - *{one.name}*: {one.about}." for one in LANDSCAPES)
    top = max(LANDSCAPES[0].rates)
    ended = sum(study.rate(one, LANDSCAPES[0], "grpo", True) == top for one in study.entrants)
    return f"""# Curricula on the toy policy

Which teachers, allocators, estimators and repairs learn more from the same number of generated rollouts than uniform sampling does? {runs:,} runs,
{cpu / 60:.0f} minutes of processor time. Everything on this page is printed by

```bash
{command}
```

- **The toy** is `outlay.testing.toy_policy`: 600 prompts at five levels of which each shares features with the next, a logistic policy that at
  first solves one prompt in fifteen, one rollout a Bernoulli draw, 32 prompts x 8 rollouts a batch. It is a landscape in which skill transfers
  upward and every prompt can be learnt, and no language model: what wins here does what it claims, how much that brings elsewhere it does not tell.
- **Budget**: {ROLLOUTS:,} generated rollouts for everyone, to the unit. Greedy rollouts (ReMax), probes, groups that are thrown away and the answers of
  examinations (`skill_it`, `missing_skills`, `mbtl`) are paid from it. Passes for gradient norms and for value models are not rollouts and are
  not charged here; in a run they are.
- **Loss**: the sum over rollouts of A (r - p) x, divided by 256 whatever is thrown away or divided otherwise. Dividing by what is informative would be a
  larger step, and a larger step alone wins.
- **Measured** on 600 other prompts of the same law, by their true rate of success: the mean over rollouts spent (area), the end, the end on
  levels 3 and 4. Seeds {study.seeds[0]} to {study.seeds[-1]}. Differences to uniform sampling with the same objective are paired by seed; intervals are
  Student's, 95 %, so that among sixty methods one or two on either side are better or worse by chance.
- **Rollouts to uniform's final**: the share of the budget after which the success that uniform GRPO *ends* with, in the same landscape and under
  the same choice of rate, was first reached; the median over seeds.
- **Rates**: the same tries for every method and objective, on seeds {TUNE_SEEDS[0]} to {TUNE_SEEDS[-1]}, by area. Every method is shown at its own
  best rate and at uniform's. In the free landscape the largest that was tried, {top:g}, is the best for {ended} of the {len(study.entrants)}
  methods with GRPO: there the grid ends the search, and methods come close together.
- **Landscapes**:
{scapes}
"""


def _headline(study: Study) -> str:
    lines = ["## In short\n"]
    for landscape, objective in study.places:
        for own in (False, True):
            words: dict[str, list[str]] = {"better": [], "undecided": [], "worse": []}
            for one in study.entrants[1:]:
                if study.runs(one, landscape, objective, own):
                    words[verdict(study.against(one, landscape, objective, own))].append(one.name)
            rate = (
                "at their own best rates" if own else "at uniform's rate" if landscape.same is None else f"at the rate {landscape.same:g}"
            )
            best = max(study.entrants[1:], key=lambda one: study.against(one, landscape, objective, own).mean)
            gain = study.against(best, landscape, objective, own)
            counts = ", ".join(f"{len(names)} {word}" for word, names in words.items())
            lines.append(
                f"- {landscape.name}, {objective}, {rate}: {counts}. Largest gain: {best.name}, {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]."
            )
    lines += _sides(study)
    lines.append(
        "\n**Half of the rollouts.** Methods that reach the final success of uniform GRPO in half of the budget or less (median over seeds). "
        "What uniform GRPO takes itself is below 1 where it stood still before its end:\n"
    )
    lines += ["| landscape | rate | methods (share of the rollouts) | uniform GRPO itself |", "|---|---|---|---|"]
    for landscape in LANDSCAPES:
        for own in (False, True):
            found = []
            for objective in landscape.objectives:
                for one in study.entrants[1:]:
                    shares = study.shares(one, landscape, objective, own)
                    if shares and math.isfinite(statistics.median(shares)):
                        found.append((statistics.median(shares), one.name if objective == "grpo" else f"{one.name} (remax)"))
            itself = statistics.median(study.shares(study.entrants[0], landscape, "grpo", own))
            fast = [f"{name} {share:.2f}" for share, name in sorted(found) if share <= 0.5]
            names = "; ".join(fast) or f"none; the fastest is {min(found)[1]} {min(found)[0]:.2f}"
            lines.append(f"| {landscape.name} | {'own' if own else 'the same'} | {names} | {itself:.2f} |")
    return "\n".join([*lines, ""])


def _sides(study: Study) -> list[str]:
    """Return who is better or worse everywhere, and whose gain was its longer steps."""
    places = [(landscape, objective, own) for landscape, objective in study.places for own in (False, True)]
    words = {
        one.name: {(place[0].name, *place[1:]): verdict(study.against(one, *place)) for place in places}
        for one in study.entrants[1:]
        if study.runs(one, *places[0])
    }
    everywhere = {word: [name for name, mine in words.items() if set(mine.values()) == {word}] for word in ("better", "worse")}
    free, bounded = LANDSCAPES
    gone = [
        name for name, mine in words.items() if mine[free.name, "grpo", False] == "better" and mine[bounded.name, "grpo", True] != "better"
    ]
    kept = [name for name, mine in words.items() if mine[free.name, "grpo", False] == mine[bounded.name, "grpo", True] == "better"]
    return [
        f"- **Better in all {len(places)} places**: {'; '.join(everywhere['better']) or 'none'}.",
        f"- **Worse in all of them**: {'; '.join(everywhere['worse']) or 'none'}.",
        f"- **Better with GRPO at the rate {free.same:g}, and still when steps are bounded**: {'; '.join(kept) or 'none'}.",
        f"- **Better at that rate, but not when steps are bounded**: {'; '.join(gone) or 'none'}. At one rate their steps are longer, since "
        "they find more signal in a batch (the column *step*); with steps bounded alike, no gain is left that shows here.",
    ]


def _overview(study: Study) -> str:
    parts = [
        "## Gain in area over uniform sampling\n\n**Bold** is better and *worse* is said, beyond the 95 % interval; the rest is undecided. The "
        "first column of each landscape is at uniform's rate, the second at each method's own best.\n"
    ]
    for objective in OBJECTIVES:
        scapes = [one for one in LANDSCAPES if objective in one.objectives]
        heads = [f"{one.name}, same | {one.name}, own" for one in scapes]
        lines = [f"### {objective}\n", f"| method | kind | {' | '.join(heads)} |", "|---" * (2 + 2 * len(heads)) + "|"]
        for one in study.entrants:
            cells = [told(study.against(one, landscape, objective, own)) for landscape in scapes for own in (False, True)]
            if one is study.entrants[0]:
                cells = [
                    f"area {statistics.fmean(run['area'] for run in study.runs(one, landscape, objective, own)):.3f}"
                    for landscape in scapes
                    for own in (False, True)
                ]
            lines.append(f"| {one.name} | {one.kind} | {' | '.join(cells)} |")
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def _rates(study: Study) -> str:
    lines = [
        "## What a larger rate alone brings\n",
        "Uniform sampling at every rate that was tried: area, and mean length of an update, on the seeds for tuning. Set it beside the gains above.\n",
    ]
    for objective in OBJECTIVES:
        for landscape in (one for one in LANDSCAPES if objective in one.objectives):
            base = study.entrants[0]
            cells = [
                f"{study.tuned(base, landscape, objective, rate):.3f} ({study.tuned(base, landscape, objective, rate, 'norm'):.2f})"
                for rate in landscape.rates
            ]
            lines += [
                f"| {objective}, {landscape.name}: rate | {' | '.join(f'{rate:g}' for rate in landscape.rates)} |",
                "|---" * (len(cells) + 1) + "|",
            ]
            lines += [f"| area (step) | {' | '.join(cells)} |", ""]
    return "\n".join(lines)


def _details(study: Study, landscape: Landscape, objective: str) -> str:
    lines = [f"## {landscape.name}, {objective}\n"]
    for own in (False, True):
        rate = study.rate(study.entrants[0], landscape, objective, own)
        lines.append("At each method's own best rate:\n" if own else f"At the rate {rate:g} for all:\n")
        head = "method | rate | area | against uniform | verdict | final | final, hard | rollouts to uniform's final | updates | step | informative"
        lines += [f"| {head} |", "|---" * 11 + "|"]
        measured = [one for one in study.entrants if study.runs(one, landscape, objective, own)]
        for one in sorted(measured, key=lambda one: -study.against(one, landscape, objective, own).mean):
            runs = study.runs(one, landscape, objective, own)
            gain = study.against(one, landscape, objective, own)
            area, final, hard, step, informative, updates = (
                statistics.fmean(run[name] for run in runs) for name in ("area", "final", "hard", "norm", "informative", "updates")
            )
            base = one is study.entrants[0]
            difference = "" if base else f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
            reached = half_time(study.shares(one, landscape, objective, own))
            used = study.job(one, landscape, objective, own).rate
            lines.append(
                f"| {f'**{one.name}**' if base else one.name} | {used:g} | {area:.3f} | {difference} | {'' if base else verdict(gain)} "
                f"| {final:.3f} | {hard:.3f} | {reached} | {updates:.0f} | {step:.2f} | {informative:.0%} |"
            )
        failed = [one.name for one in study.entrants if one not in measured]
        lines += [f"\nFailed: {', '.join(failed)}.", ""] if failed else [""]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--store", type=Path, default=Path("runs/toy-curricula"))
    parser.add_argument("--show", action="store_true", help="run nothing, print what the store holds")
    parser.add_argument("--out", type=Path, help="write the page there as well")
    asked = parser.parse_args(arguments)
    compared, without = entrants()
    study = Study(Store(asked.store), compared, tuple(range(1, asked.seeds + 1)), asked.workers)
    if not asked.show:
        study.spend()
    words = list(sys.argv[1:] if arguments is None else arguments)
    text = report(study, without, " ".join(["python bench/toy_curricula.py", *words]))
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
