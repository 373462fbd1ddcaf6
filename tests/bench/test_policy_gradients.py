"""The learning bench of policy gradients still runs, is resumed, and says which runs failed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "policy_gradients.py"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("bench_policy_gradients", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def arguments(store: Path, *more: str) -> list[str]:
    """A bench of one method on one setting, of a start of 3 steps and updates that can be counted on one hand."""
    small = ["--settings", "gcd/1:40:3", "--rollouts", "1024", "--rates", "3e-4", "--problems", "8", "--seeds", "1", "--workers", "1"]
    return [*small, "--store", str(store), *more]


def rows(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store / "runs.jsonl").read_text().splitlines()]


def test_a_small_bench_is_spent_once_and_shown_again(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, out = tmp_path / "store", tmp_path / "page.md"
    assert bench.main(arguments(store, "--methods", "grpo", "--out", str(out))) == 0
    told = capsys.readouterr()
    assert "2/2 start, 1/1 tune, 1/1 measure; 0 min left" in told.err
    kinds = [(row["kind"], row["seed"], row["outcome"]) for row in rows(store)]
    assert kinds == [("start", 1000, "ok"), ("start", 1, "ok"), ("tune", 1000, "ok"), ("measure", 1, "ok")]
    assert [row["spent"].get("rollouts", 0) for row in rows(store)] == [0, 0, 512, 1024]
    assert [row["steps"] for row in rows(store)][:2] == [3, 3] and 0 < rows(store)[2]["steps"] < rows(store)[3]["steps"]
    assert "| grpo | **1.0** [1.0, 1.0] |" in told.out and out.read_text() in told.out
    assert bench.main(arguments(store, "--methods", "grpo")) == 0  # nothing is left to be run
    assert len(rows(store)) == 4 and capsys.readouterr().err == ""


def test_a_run_that_fails_is_kept_and_shown(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A start that cannot be taught (its answers outgrow the model's context) leaves its methods unmeasured, not unsaid."""
    store = tmp_path / "store"
    bench.main([*arguments(store, "--methods", "rloo")[2:], "--settings", "count/3:40:3"])
    assert [(row["kind"], row["outcome"]) for row in rows(store)] == [("start", "error"), ("start", "error")]
    assert "start count/3 start lr 0.003 seed 1000: InputError" in capsys.readouterr().out


def test_every_policy_gradient_of_the_catalog_is_compared(bench: ModuleType) -> None:
    from outlay.catalog import make
    from outlay.train import load_recipe

    names = bench.policy_gradients()
    assert {"reinforce", "ppo", "grpo", "raft_pp", "disco", "hpt"} <= set(names) and not {"next_token", "policy_gradient", "dpo"} & set(
        names
    )
    assert set(bench.OWN) <= set(names)
    setting = bench.Setting.read("gcd/2")
    for name in [*names, bench.SFT]:
        recipe = load_recipe(bench.Job("measure", setting, name, 1e-4, 0, 1024, 10).recipe("start"))
        assert recipe.stages[0].objective == make(f"objectives/{name}", **bench.OWN[name].objective) if name in bench.OWN else True


def test_the_rate_is_the_best_of_each_setting(bench: ModuleType, tmp_path: Path) -> None:
    """A run that failed counts as 0, whatever it says."""
    one, other = bench.Setting.read("gcd/2"), bench.Setting.read("count/1")
    study = bench.Study(bench.Store(tmp_path), (one, other), ("grpo",), 1, 1024, (1e-4, 3e-4, 9e-4), 10)
    found = {("gcd/2", 1e-4): 0.5, ("gcd/2", 3e-4): 0.4, ("count/1", 1e-4): 0.3, ("count/1", 3e-4): 0.5, ("count/1", 9e-4): 0.4}
    for job in study.tries("grpo"):
        assert study.rate("grpo", other) is None
        value = found.get((job.setting.name, job.lr))
        study.store.add({"key": job.key, "outcome": "ok" if value else "error", "metrics": {"sampled_match": value or 1.0}})
    assert (study.rate("grpo", one), study.rate("grpo", other)) == (1e-4, 3e-4)
    assert [(job.setting.name, job.lr, job.seed, job.rollouts) for job in study.measured("grpo")] == [
        ("gcd/2", 1e-4, 1, 1024),
        ("count/1", 3e-4, 1, 1024),
    ]


@pytest.mark.parametrize("wrong", [["--settings", "gdc/2"], ["--settings", "gcd/x:1:1"], ["--methods", "gpro"]])
def test_wrong_names_are_refused(bench: ModuleType, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench.main(wrong)
    assert stopped.value.code == 2 and "there is no" in capsys.readouterr().err
