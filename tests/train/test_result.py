"""The result: which keys it has, and that a reader never sees half of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from small_runs import lines, result_of

from outlay.train import Result, result

KEYS = {
    "name", "ended_by", "exit_code", "budget", "spent", "accounts", "lost", "metrics", "metrics_start", "stages", "seed", "versions",
    "parameters", "plan", "steps", "warnings", "peak_memory",
}  # fmt: skip


def made(folder: Path, **changes: Any) -> Result:
    fields: dict[str, Any] = dict.fromkeys(("budget", "spent", "accounts", "lost", "metrics", "metrics_start", "versions"), {})
    plain = {"name": "r", "ended_by": "steps", "exit_code": 0, "stages": [], "seed": 1, "parameters": 2, "steps": 3, "plan": None}
    return Result(**{**fields, **plain, "folder": str(folder), **changes})


def test_the_keys_are_those_that_readers_know(finished_folder: Path) -> None:
    told = result_of(finished_folder)
    assert set(told) == KEYS
    assert set(told["stages"][0]) >= {"name", "steps", "share", "spent", "final_loss"}
    assert told["versions"]["outlay"] and told["plan"] == json.loads((finished_folder / "plan.json").read_text())


def test_what_is_told_is_what_happened(finished: Result, finished_folder: Path) -> None:
    told, steps = result_of(finished_folder), lines(finished_folder, "step")
    assert (told["name"], told["ended_by"], told["exit_code"], told["steps"], told["seed"]) == ("digits", "steps", 0, 60, 0)
    assert told["budget"] == {"steps": {"limit": 60.0, "spent": 60.0}} and told["lost"] == {} and told["warnings"] == []
    assert told["parameters"] == 64 * 32 + 32 + 32 * 10 + 10
    (stage,) = told["stages"]
    assert stage["name"] == "train" and stage["steps"] == 60 and stage["share"] == 1.0 and stage["spent"] == {"steps": 60.0}
    assert stage["final_loss"] == pytest.approx(sum(line["loss"] for line in steps[-20:]) / 20)
    assert told["metrics_start"] == lines(finished_folder, "evaluation")[0]["metrics"]
    assert told["metrics"] == lines(finished_folder, "evaluation")[-1]["metrics"]
    assert told["metrics"]["held_out/loss"] < told["metrics_start"]["held_out/loss"]
    assert finished.folder == str(finished_folder) and finished.metrics == told["metrics"] and finished.accounts == told["accounts"]


def test_accounts_sum_to_what_was_spent(finished: Result) -> None:
    assert finished.accounts["train"]["examples"] == 60 * 32
    assert finished.spent["examples"] == 60 * 32 + finished.accounts["eval"]["examples"]
    for unit, amount in finished.spent.items():
        assert sum(book.get(unit, 0.0) for book in finished.accounts.values()) == pytest.approx(amount, rel=1e-12)


def test_the_result_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path).write()
    before = (tmp_path / result.NAME).read_bytes()
    assert "folder" not in json.loads(before)

    def fail(*_: object) -> None:
        raise OSError("disk")

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk"):
            made(tmp_path, steps=4).write()
    assert (tmp_path / result.NAME).read_bytes() == before
    made(tmp_path, steps=4).write()
    assert result_of(tmp_path)["steps"] == 4 and sorted(path.name for path in tmp_path.iterdir()) == [result.NAME]
