"""A bench being spent: peaks are searched first, then every method is measured at its own; and the cells that tables are made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outlay.bench.definition import Bench, Method, Workload, load_workload
from outlay.bench.jobs import Job
from outlay.bench.running import Progress, run_jobs
from outlay.bench.store import Store
from outlay.errors import InputError
from outlay.train.reading import load_recipe


@dataclass(frozen=True)
class Cell:
    """One measured run.

    Args:
        workload: its name.
        method: its name.
        share: of the full budget.
        seed: of the run.
        peak: that the search found.
        loss: sign * metric, so that small is good; infinite for a run that diverged.
        metric: as measured; None for a run that diverged.
        spent: unit -> amount, all accounts together.
        accounts: account -> unit -> amount.
    """

    workload: str
    method: str
    share: float
    seed: int
    peak: float
    loss: float
    metric: float | None
    spent: dict[str, float]
    accounts: dict[str, dict[str, float]]


class Study:
    """A bench with its workloads and the store of its runs.

    Args:
        bench: what is compared.
        store: results so far.
        near: folder in which the bench's own workloads lie; None for the bundled ones.
    """

    def __init__(self, bench: Bench, store: Store, near: Path | None = None) -> None:
        self.bench, self.store = bench, store
        self.workloads = [load_workload(name, near) for name in bench.workloads]
        self._jobs: dict[tuple[int, int, float, float, int], Job] = {}

    def methods(self, workload: Workload) -> dict[str, Method]:
        """Return the methods that are compared on a workload."""
        return {name: method for name, method in self.bench.methods.items() if not workload.methods or name in workload.methods}

    def shares(self, workload: Workload) -> tuple[float, ...]:
        """Return the budgets that are given on a workload."""
        return tuple(share for share in self.bench.shares if not workload.shares or share in workload.shares)

    def tries(self, workload: Workload, method: Method) -> list[Job]:
        """Return the jobs of the search for a method's peak."""
        search = self.bench.search
        peaks = search.peaks(*method.range(workload), workload.tries or search.tries)
        return [self._job(workload, method, search.share, peak, search.seed) for peak in peaks]

    def peak(self, workload: Workload, method: Method) -> float | None:
        """Return the best peak that was tried; None while tries are missing. Where all diverged, the smallest."""
        jobs = self.tries(workload, method)
        if any(job.key not in self.store for job in jobs):
            return None
        losses = [self._loss(workload, self.store[job.key], workload.tune_on) for job in jobs]
        return jobs[losses.index(min(losses))].peak

    def measured(self, workload: Workload, method: Method) -> list[Job]:
        """Return the jobs at the found peak; none while it is not known."""
        peak = self.peak(workload, method)
        seeds = range(self.bench.seeds)
        if peak is None:
            return []
        return [self._job(workload, method, share, peak, seed) for share in self.shares(workload) for seed in seeds]

    def _job(self, workload: Workload, method: Method, share: float, peak: float, seed: int) -> Job:
        """Return a job, the same one each time, since working out its key reads the schedule at every step."""
        place = (id(workload), id(method), share, peak, seed)
        return self._jobs.setdefault(place, Job(workload, method, share, peak, seed))

    def check(self) -> None:
        """Read every recipe once, with all its problems.

        Raises:
            InputError: naming the workload and the method.
        """
        for workload in self.workloads:
            for name, method in self.methods(workload).items():
                try:
                    load_recipe(self.tries(workload, method)[0].recipe())
                except InputError as error:
                    raise InputError(error.problems, f"workload {workload.name} with method {name}") from error

    def ask(self) -> Iterator[list[Job]]:
        """Yield jobs: every search first, and the measured runs of a method as soon as its search has ended."""
        pairs = [(workload, method) for workload in self.workloads for method in self.methods(workload).values()]
        yield [job for workload, method in pairs for job in self.tries(workload, method)]
        while pairs:
            ready = [pair for pair in pairs if self.peak(*pair) is not None]
            pairs = [pair for pair in pairs if pair not in ready]
            yield [job for pair in ready for job in self.measured(*pair)]

    def cells(self) -> list[Cell]:
        """Return what has been measured so far; runs that could not be judged are left out (see ``unjudged``)."""
        found = []
        for workload in self.workloads:
            for name, method in self.methods(workload).items():
                for job in self.measured(workload, method):
                    row = self.store.get(job.key)
                    if row is not None and row["outcome"] != "error":
                        loss = self._loss(workload, row, workload.metric)
                        metric = workload.sign * loss if math.isfinite(loss) else None
                        found.append(Cell(workload.name, name, job.share, job.seed, job.peak, loss, metric, row["spent"], row["accounts"]))
        return found

    def jobs(self) -> list[Job]:
        """Return every job that is known by now, each once."""
        pairs = [(workload, method) for workload in self.workloads for method in self.methods(workload).values()]
        every = [job for pair in pairs for job in [*self.tries(*pair), *self.measured(*pair)]]
        return list({job.key: job for job in every}.values())

    def unjudged(self) -> list[dict[str, Any]]:
        """Return the rows of runs that ended in an error and could not be judged."""
        rows = [self.store[job.key] for job in self.jobs() if job.key in self.store]
        return [row for row in rows if row["outcome"] == "error"]

    def at_the_edge(self) -> list[tuple[str, str, float]]:
        """Return (workload, method, peak) where the best peak is the smallest or largest that was tried: the range may be too narrow."""
        found = []
        for workload in self.workloads:
            for name, method in self.methods(workload).items():
                peak, peaks = self.peak(workload, method), [job.peak for job in self.tries(workload, method)]
                if peak is not None and len(peaks) > 2 and peak in (peaks[0], peaks[-1]):
                    found.append((workload.name, name, peak))
        return found

    def _loss(self, workload: Workload, row: dict[str, Any], metric: str) -> float:
        return workload.sign * workload.measure(row["metrics"], metric) if row["outcome"] == "ok" else math.inf


def spend(study: Study, processes: int, progress: Progress | None = None) -> Study:
    """Run what is missing and return the study.

    Raises:
        InputError: when a recipe that a method and a workload come to is wrong; nothing has been run then.
    """
    study.check()
    run_jobs(study.ask(), study.store, processes, progress)
    return study
