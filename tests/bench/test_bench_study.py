"""A bench end to end on real runs of a small network, and what decides that two runs are the same."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from outlay.bench import Bench, Claim, Method, Search, Store, Study, Target, Workload, load_bench, load_claims, load_workload, spend
from outlay.bench.claims import find
from outlay.bench.definition import bundled
from outlay.bench.jobs import Job
from outlay.bench.statistics import Interval
from outlay.bench.tables import claims_markdown, markdown
from outlay.budget import Budget
from outlay.cli import app
from outlay.errors import InputError
from outlay.schedules import Constant, Cosine, Linear, Rex, Sampled, Uba

EXAM = {"objective": "classification", "examples": 180}
RECIPE: dict[str, Any] = {
    "model": {"mlp": {"inputs": 64, "classes": 10, "hidden": [8]}},
    "stages": [{"source": {"images": {"name": "digits"}}, "objective": "classification", "optimizer": "sgd", "batch_size": 16}],
    "evaluate": {
        "start": False,
        "exams": [
            {"held_out_loss": {**EXAM, "name": "tune", "part": [0, 0.5]}},
            {"held_out_loss": {**EXAM, "name": "test", "part": [0.5, 1]}},
        ],
    },
}
SMALL = Workload(RECIPE, Budget.parse("40 steps"), "test/loss", "tune/loss", "lower", (0.01, 0.2), name="small", about="digits")
YAML = {
    "recipe": RECIPE, "full": "40 steps", "metric": "test/loss", "tune_on": "tune/loss", "better": "lower", "peaks": [0.01, 0.2], "about": "digits",
}  # fmt: skip


def job(schedule: Any = None, share: float = 1.0, peak: float = 0.1, seed: int = 0, workload: Workload = SMALL, **more: Any) -> Job:
    return Job(workload, Method(schedule, **more), share, peak, seed)


# ---- jobs ----------------------------------------------------------------------------------------------------------------------------


def test_methods_that_come_to_the_same_numbers_share_a_run() -> None:
    assert job(Uba(phi=2.0)).key == job(Cosine()).key
    assert job(Rex(beta=1.0)).key == job(Linear()).key
    assert job(None).key == job(Constant()).key == job(Sampled(Rex(), 1)).key
    assert job(Constant(0.5), peak=0.2).key == job(Constant(), peak=0.1).key


def test_what_changes_the_outcome_changes_the_name() -> None:
    base = job(Linear())
    others = [
        job(Rex()), job(Linear(), share=0.5), job(Linear(), peak=0.2), job(Linear(), seed=1), job(Linear(), set={"stages[0].batch_size": 8}),
        job(Linear(), program="refined"), job(Linear(), workload=replace(SMALL, recipe={**RECIPE, "precision": "bf16"})),
    ]  # fmt: skip
    assert len({one.key for one in [base, *others]}) == 1 + len(others)


def test_a_job_is_a_recipe_with_knob_budget_and_seed() -> None:
    recipe = job(Rex(), share=0.25, peak=0.3, seed=7, set={"stages[0].optimizer": "adamw"}).recipe()
    assert (recipe["budget"], recipe["seed"], recipe["threads"]) == ("10 steps", 7, 1)
    assert recipe["stages"][0]["knobs"]["lr"] == {"peak": 0.3, "schedule": {"schedules/rex": {"beta": 0.5, "floor": 0.0}}}
    assert recipe["stages"][0]["optimizer"] == "adamw"
    assert "knobs" not in RECIPE["stages"][0]  # the workload's own values stay as they are


def test_peaks_are_log_spaced_and_as_many_for_everybody() -> None:
    assert Search(tries=5).peaks(0.01, 1.0, 5) == pytest.approx([0.01, 0.03162, 0.1, 0.3162, 1.0], rel=1e-3)
    assert Search(tries=1).peaks(0.01, 1.0, 1) == [0.1]
    assert Method(peak_times=10.0).range(SMALL) == (0.1, 2.0)
    assert Method(peaks=(1.0, 1.0)).range(SMALL) == (1.0, 1.0)


# ---- a bench, spent --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spent(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three methods, two budgets, two seeds; one of the methods has a range at which every try diverges."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "small.yaml").write_text(json.dumps(YAML))
    methods = {"linear": Method(Linear()), "uba": Method(Uba(phi=2.0)), "cosine": Method(Cosine()), "wild": Method(peaks=(1e30, 1e32))}
    bench = Bench(("small",), methods, (0.25, 1.0), 2, Search(3, 0.25), target=Target("linear", 0.25), name="small", title="Small")
    return spend(Study(bench, Store(folder / "store"), folder), processes=1)


def test_every_method_has_its_search_and_its_runs(spent: Study) -> None:
    cells = spent.cells()
    assert {(cell.method, cell.share, cell.seed) for cell in cells} == {
        (name, share, seed) for name in ("linear", "uba", "cosine", "wild") for share in (0.25, 1.0) for seed in (0, 1)
    }
    # 3 tries and 4 runs a method; uba with phi = 2 is the cosine, so its seven are shared
    assert len(spent.store) == 3 * 7
    tries = [spent.store[one.key] for one in spent.tries(spent.workloads[0], spent.bench.methods["linear"])]
    best = min(tries, key=lambda row: row["metrics"]["tune/loss"])
    assert spent.peak(spent.workloads[0], spent.bench.methods["linear"]) == best["peak"]
    assert all(row["seed"] == 1000 and row["steps"] == 10 for row in tries)


def test_cells_are_judged_on_what_was_not_tuned_on_and_end_on_the_budget(spent: Study) -> None:
    for cell in spent.cells():
        if cell.method != "wild":
            row = next(
                row
                for row in map(spent.store.get, (one.key for one in spent.jobs()))
                if row and row["metrics"].get("test/loss") == cell.metric
            )
            assert row["metrics"]["tune/loss"] != cell.metric
            assert cell.spent["steps"] == {0.25: 10, 1.0: 40}[cell.share]
    linear = {(cell.share, cell.seed): cell.loss for cell in spent.cells() if cell.method == "linear"}
    assert all(linear[1.0, seed] < linear[0.25, seed] for seed in (0, 1))


def test_divergence_is_the_worst_outcome_and_not_an_error(spent: Study) -> None:
    wild = [cell for cell in spent.cells() if cell.method == "wild"]
    assert all(cell.loss == math.inf and cell.metric is None for cell in wild)
    assert spent.unjudged() == []


def test_a_second_time_nothing_is_run(spent: Study) -> None:
    lines = (spent.store.folder / "runs.jsonl").read_bytes()
    again = spend(Study(spent.bench, Store(spent.store.folder), spent.store.folder.parent), processes=1)
    assert (spent.store.folder / "runs.jsonl").read_bytes() == lines
    assert again.cells() == spent.cells()


def test_the_report_says_what_was_done(spent: Study) -> None:
    text = markdown(spent)
    assert "21 of 21 runs so far" in text
    assert "7 diverged, 0 could not be judged" in text
    assert "3 peaks (one where its range is a single value), log-spaced" in text
    assert "| wild | 0.00 | - |" in text  # reaches no target
    assert "(2 diverged)" in text
    linear = next(line for line in text.splitlines() if line.startswith("| linear | **"))
    assert linear.count("|") == 5


def test_the_store_survives_a_torn_line(spent: Study, tmp_path: Path) -> None:
    whole = (spent.store.folder / "runs.jsonl").read_bytes()
    (tmp_path / "runs.jsonl").write_bytes(whole[:-40])
    torn = Store(tmp_path)
    assert len(torn) == len(spent.store) - 1
    torn.add({"key": "new", "outcome": "ok"})
    assert len(Store(tmp_path)) == len(spent.store)
    assert Store(tmp_path)["new"] == {"key": "new", "outcome": "ok"}


def test_a_run_that_cannot_be_judged_is_counted_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.yaml").write_text(json.dumps(YAML))
    (tmp_path / "falls.py").write_text("def over(): raise RuntimeError('out of something')")
    monkeypatch.syspath_prepend(str(tmp_path))
    methods = {"linear": Method(Linear()), "broken": Method(set={"model": {"python": {"target": "falls:over"}}})}
    bench = Bench(("small",), methods, (0.25,), 1, Search(1, 0.25))
    study = spend(Study(bench, Store(tmp_path / "store"), tmp_path), processes=1)
    assert {cell.method for cell in study.cells()} == {"linear"}
    assert len(study.unjudged()) == 2
    assert study.unjudged()[0]["why"] == "RuntimeError: out of something"


@pytest.mark.parametrize(
    ("workload", "method", "message"),
    [
        ({}, {"set": {"stages[0].objective": "nonsense"}}, "workload small with method odd.*there is no method 'nonsense'"),
        ({}, {"set": {"stages[7].share": 1}}, "the recipe has nothing at 7 to set into"),
        ({"metric": "test/los"}, {}, "the workload small asks for test/los, and its exams measure tune/loss, tune/accuracy, test/loss"),
    ],
)
def test_wrong_input_ends_a_bench_before_it_is_ranked(workload: Any, method: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(json.dumps({**YAML, **workload}))
    bench = Bench(("small",), {"linear": Method(Linear()), "odd": Method(**method)}, (0.25,), 1, Search(1, 0.25))
    store = Store(tmp_path / "store")
    with pytest.raises(InputError, match=message):
        spend(Study(bench, store, tmp_path), processes=1)
    assert len(store) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_wrong_input_found_by_a_worker_reaches_the_user(processes: int, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(json.dumps({**YAML, "metric": "test/los"}))
    bench = Bench(("small",), {"linear": Method(Linear())}, (0.25,), 1, Search(1, 0.25))
    with pytest.raises(InputError, match="asks for test/los"):
        spend(Study(bench, Store(tmp_path / "store"), tmp_path), processes)


def test_refinement_pays_for_its_first_run(tmp_path: Path) -> None:
    from outlay.bench.programs import refined

    row = refined(job(None, program="refined"), tmp_path)
    assert (row["steps"], row["spent"]["steps"]) == (40, 40)
    assert (row["accounts"]["first run"]["steps"], row["accounts"]["train"]["steps"]) == (20, 20)
    assert (tmp_path / "first").is_dir()
    assert row["metrics"]["test/loss"] < 2.3


# ---- claims ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "margin", "low", "high", "verdict"),
    [
        ("better", 0.0, -2.0, -1.0, "holds"),
        ("better", 0.0, -2.0, 1.0, "not shown"),
        ("better", 0.0, 1.0, 2.0, "does not hold"),
        ("better", 0.0, math.nan, math.nan, "could not judge"),
        ("within", 0.5, -2.0, 0.4, "holds"),
        ("within", 0.5, -2.0, 0.6, "not shown"),
        ("within", 0.5, 0.6, 0.7, "does not hold"),
    ],
)
def test_verdicts(claims: Any, margin: float, low: float, high: float, verdict: str) -> None:
    claim = Claim("small", Method(), Method(), claims=claims, margin=margin)
    assert claim.judge(Interval((low + high) / 2, low, high, 5)) == verdict


@pytest.mark.parametrize("workload", ["small", "small.yaml"])
def test_a_claim_that_is_false_is_reported_as_such(workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.yaml").write_text(json.dumps(YAML))
    monkeypatch.chdir(tmp_path)
    claim = Claim(workload, Method(Constant(1e-6)), Method(Linear()), seeds=3, tries=1, name="idle", says="a rate of nothing learns best")
    study = spend(Study(claim.bench(), Store(tmp_path / "store"), tmp_path), processes=1)
    found = find(claim, study)
    assert found.verdict == "does not hold"
    assert found.difference.low > 0
    assert found.method.mean > found.baseline.mean
    assert "does not hold |" in claims_markdown([found])


def test_bundled_definitions_are_read_whole() -> None:
    for name in bundled("benches"):
        load_bench(name)
    for name in bundled("workloads"):
        workload = load_workload(name)
        for schedule in (None, Linear()):
            from outlay.train import load_recipe

            load_recipe(job(schedule, workload=workload, peak=workload.peaks[0]).recipe())
    for claim in load_claims():
        claim.bench()
        assert claim.says


def test_wrong_definitions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no method 'lineer' in this bench; did you mean 'linear'"):
        Bench(("small",), {"linear": Method()}, (1.0,), baseline="lineer")
    with pytest.raises(InputError, match=r"must rise within \(0, 1\]"):
        Bench(("small",), {"linear": Method()}, (1.0, 0.5))
    with pytest.raises(InputError, match="none of the bundled benches is called so"):
        load_bench("rexx")
    with pytest.raises(InputError, match="there is no claim 'rexx'"):
        load_claims(only=["rexx"])
    with pytest.raises(ValueError, match="the recipe of a workload holds no budget, which the bench sets; found '9 steps'"):
        replace(SMALL, recipe={**RECIPE, "budget": "9 steps"})
    (tmp_path / "c.yaml").write_text("title: no claims here\n")
    with pytest.raises(InputError, match="'title' is none"):
        load_claims(tmp_path / "c.yaml")
    (tmp_path / "b.yaml").write_text("workloads: [mnist1d-mlp-sgd]\nmethods: {a: {schedule: rexx}}\nshares: [1]\nbaseline: a\n")
    with pytest.raises(InputError, match=r"methods.a.schedule: there is no method 'rexx'.*did you mean 'schedules/rex'"):
        load_bench(tmp_path / "b.yaml")


# ---- command line ----------------------------------------------------------------------------------------------------------------------


def test_the_command_line_shows_a_bench_and_writes_it(spent: Study, tmp_path: Path) -> None:
    folder = spent.store.folder.parent
    plain = {
        "workloads": ["small"], "shares": [0.25, 1], "seeds": 2, "search": {"tries": 3, "share": 0.25}, "target": {"share": 0.25},
        "methods": {"linear": {"schedule": "linear"}, "cosine": {"schedule": "cosine"}}, "title": "Small",
    }  # fmt: skip
    (folder / "bench.yaml").write_text(json.dumps(plain))
    asked = ["bench", "show", str(folder / "bench.yaml"), "--store", str(spent.store.folder), "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "14 of 14 runs so far" in shown.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.md", "cells.json", "cells.parquet", "ranks.svg", "profiles.svg", "curves.svg",
    }  # fmt: skip
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "out" / "cells.parquet").num_rows == 8
    run = CliRunner().invoke(app, ["bench", "run", str(folder / "bench.yaml"), "--store", str(spent.store.folder), "--processes", "1"])
    assert run.exit_code == 0, run.output
    assert "Average rank of 2 methods on 1 workload " in run.output
    assert CliRunner().invoke(app, ["bench", "list"]).exit_code == 0


def test_an_unknown_workload_is_refused(spent: Study) -> None:
    wrong = CliRunner().invoke(app, ["bench", "run", "rex", "--only", "mnist-resnet"])
    assert isinstance(wrong.exception, InputError)
    assert "did you mean 'mnist-resnet-" in str(wrong.exception)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """A bench that is killed leaves no process behind, and what it had finished is kept."""
    (tmp_path / "long.yaml").write_text(json.dumps({**YAML, "full": "200000 steps"}))
    plain = {
        "workloads": ["long"],
        "shares": [1],
        "seeds": 1,
        "search": {"tries": 2, "share": 1},
        "methods": {"linear": {"schedule": "linear"}},
    }
    (tmp_path / "b.yaml").write_text(json.dumps(plain))
    asked = [sys.executable, "-m", "outlay.cli", "bench", "run", str(tmp_path / "b.yaml"), "--store", str(tmp_path), "--processes", "2"]
    parent = psutil.Process(subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)
    deadline = time.monotonic() + 300
    while len(workers := [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]) < 2:
        assert time.monotonic() < deadline, "the workers did not start"
        time.sleep(0.2)
    time.sleep(5)  # into their imports, so that the watch is set up
    parent.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for process in alive:
        process.kill()
    assert not alive, "workers outlived the bench"


def test_a_bench_that_is_interrupted_keeps_nothing_half_done(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(json.dumps({**YAML, "full": "200000 steps"}))
    plain = {
        "workloads": ["long"],
        "shares": [1],
        "seeds": 1,
        "search": {"tries": 1, "share": 1},
        "methods": {"linear": {"schedule": "linear"}},
    }
    (tmp_path / "b.yaml").write_text(json.dumps(plain))
    asked = [sys.executable, "-m", "outlay.cli", "bench", "run", str(tmp_path / "b.yaml"), "--store", str(tmp_path), "--processes", "1"]
    process = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("outlay-bench-*/run/checkpoints/step-*")):  # the run is under way
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert b"the same command goes on from here" in said
    assert len(Store(tmp_path)) == 0
    assert not list(tmp_path.glob("outlay-bench-*"))  # nor a directory left behind


def test_what_could_not_be_judged_is_tried_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add({"key": "a", "outcome": "error"})
    store.add({"key": "b", "outcome": "ok"})
    assert "a" in Store(tmp_path) and "b" in Store(tmp_path)
    assert "a" not in Store(tmp_path, retry=True) and "b" in Store(tmp_path, retry=True)
