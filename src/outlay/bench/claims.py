"""Claims: what each method is said to do, one row each, checked at equal total budget and reported as it comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from outlay.bench.definition import HERE, Bench, Method, Search, read_plain
from outlay.bench.running import Progress
from outlay.bench.statistics import Interval, mean_interval, paired
from outlay.bench.store import Store
from outlay.bench.study import Study, spend
from outlay.catalog import build_dataclass
from outlay.errors import InputError, Problem, nearest

Verdict = Literal["holds", "does not hold", "not shown", "could not judge"]


@dataclass(frozen=True)
class Claim:
    """One claim: on a workload, at a share of its budget, a method's metric is better than a baseline's, or not much worse.

    Both are given the same search and the same total budget, everything that they spend included.

    Args:
        workload: name of a workload.
        method: what is claimed to be good.
        baseline: what it is compared with.
        share: budget, as a share of the workload's full one.
        claims: ``better``: loss(method) < loss(baseline). ``within``: loss(method) <= loss(baseline) + margin.
        margin: for ``within``, in the metric's unit, >= 0.
        seeds: how many, >= 2.
        tries: peaks that each search tries, >= 1.
        name: of the claim; usually the method's.
        says: the sentence that is claimed.
    """

    workload: str
    method: Method
    baseline: Method
    share: float = 1.0
    claims: Literal["better", "within"] = "better"
    margin: float = 0.0
    seeds: int = 5
    tries: int = 5
    name: str = ""
    says: str = ""

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ValueError(f"seeds must be >= 2, or there is no interval, found {self.seeds}")
        if self.margin < 0 or (self.claims == "better" and self.margin):
            raise ValueError(f"margin must be >= 0, and 0 for a claim to be better, found {self.margin}")

    def bench(self) -> Bench:
        """Return the bench that checks it."""
        methods = {"method": self.method, "baseline": self.baseline}
        search = Search(tries=self.tries, share=self.share)
        return Bench((self.workload,), methods, (self.share,), self.seeds, search, baseline="baseline", name=f"claim-{self.name}")

    def judge(self, difference: Interval) -> Verdict:
        """Return the verdict from the interval of loss(method) - loss(baseline), paired by seed.

        It holds when the whole interval lies on the claimed side of the margin, does not hold when the whole of it lies on the other, and is
        not shown in between.
        """
        if not difference.low <= difference.high:
            return "could not judge"
        if difference.high < self.margin or (self.claims == "within" and difference.high <= self.margin):
            return "holds"
        return "does not hold" if difference.low > self.margin else "not shown"


@dataclass(frozen=True)
class Finding:
    """What came of a claim.

    Args:
        claim: what was claimed.
        verdict: how it came out.
        difference: loss(method) - loss(baseline), paired by seed, mean and interval; the loss is the metric, or minus it where more is better.
        method: the method's metric, mean and interval over seeds.
        baseline: the baseline's.
        peaks: those that the searches found, the method's first.
        overhead: share of the steps that the method spent outside of training.
    """

    claim: Claim
    verdict: Verdict
    difference: Interval
    method: Interval
    baseline: Interval
    peaks: tuple[float, float]
    overhead: float


def load_claims(path: Path | None = None, only: Sequence[str] = ()) -> list[Claim]:
    """Read the claims that come with outlay, or those of a file: a mapping from names to claims.

    Raises:
        InputError: when something is wrong with them, or ``only`` names one that is not there.
    """
    path = path or HERE / "claims.yaml"
    plain = read_plain(path)
    for name in only:
        if name not in plain:
            raise InputError(f"there is no claim {name!r}{nearest(name, plain)}")
    wrong = [name for name, fields in plain.items() if not isinstance(fields, dict)]
    if wrong:
        raise InputError(
            f"a claims file maps names to claims, each a mapping with workload, method and baseline; {wrong[0]!r} is none", str(path)
        )
    problems: list[Problem] = []
    chosen = {name: fields for name, fields in plain.items() if not only or name in only}
    claims = [build_dataclass(Claim, {"name": name, **fields}, name, problems) for name, fields in chosen.items()]
    if problems:
        raise InputError(problems, str(path))
    return claims


def check_claims(
    claims: Sequence[Claim], store: Store, processes: int, progress: Callable[[Claim], Progress | None] = lambda claim: None,
    near: Path | None = None,
) -> list[Finding]:  # fmt: skip
    """Spend what the claims need and return what came out, claim by claim; ``near`` is where workloads of one's own lie."""
    return [find(claim, spend(Study(claim.bench(), store, near), processes, progress(claim))) for claim in claims]


def find(claim: Claim, study: Study) -> Finding:
    """Return what a spent study says about its claim."""
    cells = study.cells()
    difference = paired(cells, "method", "baseline", study.workloads[0].name, claim.share)
    if difference.count < claim.seeds:
        difference = Interval(difference.mean, float("nan"), float("nan"), difference.count)

    def metric(which: str) -> Interval:
        return mean_interval([float("nan") if cell.metric is None else cell.metric for cell in cells if cell.method == which])

    def peak(which: str) -> float:
        return next((cell.peak for cell in cells if cell.method == which), float("nan"))

    return Finding(
        claim, claim.judge(difference), difference, metric("method"), metric("baseline"), (peak("method"), peak("baseline")),
        _overhead([cell.accounts for cell in cells if cell.method == "method"]),
    )  # fmt: skip


def _overhead(accounts: Sequence[dict[str, dict[str, float]]]) -> float:
    steps = [sum(units.get("steps", 0.0) for units in one.values()) for one in accounts]
    trained = [one.get("train", {}).get("steps", 0.0) for one in accounts]
    return 1.0 - sum(trained) / sum(steps) if sum(steps) else 0.0


def as_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as plain values, one row each; None for what is not a finite number, which JSON cannot hold."""
    rows = [
        {
            "claim": one.claim.name, "says": one.claim.says, "workload": one.claim.workload, "share": one.claim.share,
            "seeds": one.difference.count, "verdict": one.verdict, "difference": one.difference.mean, "low": one.difference.low,
            "high": one.difference.high, "margin": one.claim.margin, "method": one.method.mean, "baseline": one.baseline.mean,
            "peak": one.peaks[0], "baseline_peak": one.peaks[1], "overhead": one.overhead,
        }
        for one in findings
    ]  # fmt: skip
    return [{key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()} for row in rows]
