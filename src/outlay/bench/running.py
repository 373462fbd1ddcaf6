"""Running jobs: every job is a real run in a directory of its own, several at a time, each on one thread."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from outlay.bench.jobs import Job
from outlay.bench.store import Store
from outlay.errors import InputError

#: called with (jobs done, jobs known, seconds of the finished jobs, name of the last one)
Progress = Callable[[int, int, float, str], None]


def execute(job: Job) -> dict[str, Any]:
    """Spend a job's budget in a temporary directory and return what it came to as plain values.

    ``outcome`` is ``ok``, ``diverged`` when the run's numbers broke or its metrics are not finite, or ``error`` when it could not be judged; ``why``
    holds the reason.

    Raises:
        InputError: when the recipe turns out wrong only now, or measures nothing of what the workload asks for.
    """
    from outlay.bench.programs import PROGRAMS
    from outlay.train.loop import RunFailed

    began = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="outlay-bench-"))
    row: dict[str, Any] = {
        "key": job.key, "workload": job.workload.name, "share": job.share, "peak": job.peak, "seed": job.seed,
        "metrics": {}, "spent": {}, "accounts": {}, "steps": 0, "outcome": "ok", "why": "",
    }  # fmt: skip
    try:
        row |= PROGRAMS[job.method.program](job, folder)
        absent = job.workload.absent(row["metrics"])
        if absent:
            raise InputError(
                f"the workload {job.workload.name} asks for {absent}, and its exams measure {', '.join(row['metrics']) or 'nothing'}"
            )
        judged = {name: job.workload.measure(row["metrics"], name) for name in (job.workload.metric, job.workload.tune_on)}
        if not all(map(math.isfinite, judged.values())):
            row |= {"outcome": "diverged", "why": f"the run ended with {judged}"}
    except RunFailed as error:
        row |= {"outcome": "diverged", "why": str(error)}
    except InputError:
        raise  # wrong input is wrong for the runs that follow, too
    except Exception as error:
        row |= {"outcome": "error", "why": f"{type(error).__name__}: {error}"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return row | {"seconds": time.perf_counter() - began}


def run_jobs(ask: Iterator[list[Job]], store: Store, processes: int, progress: Progress | None = None) -> None:
    """Run jobs that the store does not hold yet, ``processes`` at a time.

    Args:
        ask: yields lists of jobs; it is asked again whenever a job has ended, so that jobs may depend on results. It ends when all is known.
        store: where results are kept; looked up before a job is begun.
        processes: how many run at a time, >= 1; one runs in this process.
        progress: told after every job.
    """
    waiting: dict[str, Job] = {}
    running: set[Future[dict[str, Any]]] = set()
    known: set[str] = set()
    done, spent, last, over = 0, 0.0, "", False
    with one_thread_each(), workers(processes) as pool:
        while running or waiting or not over:
            asked = next(ask, None)
            over = over or asked is None
            fresh = {job.key: job for job in asked or () if job.key not in known}
            known |= set(fresh)
            waiting |= {key: job for key, job in fresh.items() if key not in store}
            done += sum(key in store for key in fresh)
            while waiting and len(running) < processes:
                running.add(pool.submit(execute, waiting.pop(next(iter(waiting)))))
            if progress:
                progress(done, len(known), spent, last)
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                row = future.result()
                store.add(row)
                running.discard(future)
                done, spent, last = done + 1, spent + row["seconds"], f"{row['workload']} {row['share']:.0%}"


class _Here(Executor):
    """Runs what it is given at once, in this process: one run at a time needs no other process and none of its imports."""

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


def workers(processes: int) -> Executor:
    """Return what runs functions in so many processes, which live until it is left; one is this process itself."""
    if processes == 1:
        return _Here()
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_end_with, initargs=(os.getpid(),))


def _end_with(parent: int) -> None:
    """End this worker when the process that started it has gone: one that is killed cannot tell its workers, and they would wait for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let child processes take one thread: several that take all cores wait for one another."""
    names = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
