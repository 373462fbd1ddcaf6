"""Runs: what a directory holds, what is refused before anything is created, and that a run outlives what is not its own fault."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from small_runs import EXAM, Poisoned, audit, digits, examined, language, lines, plain_stage, result_of, weights, with_objective
from torch import nn

import outlay
from outlay.budget import Budget
from outlay.errors import CheckpointError, InputError
from outlay.record import Record
from outlay.reporting import Quiet
from outlay.testing import FakeClock
from outlay.train import Recipe, Result, exporting, finishing
from outlay.train.checkpoint import checkpoints, load_checkpoint
from outlay.train.journal import read_journal


class Watching(Quiet):
    """A display that notes what it is told, and may do something at a step."""

    def __init__(self, at: int = -1, act: Any = None) -> None:
        self.at, self.act = at, act
        self.calls: list[tuple[Any, ...]] = []

    def start(self, budget: Budget, limits: Mapping[str, float] | None = None) -> None:
        self.calls.append(("start", budget, limits))

    def step(self, record: Record, spent: Mapping[str, float], share: float, seconds_left: float | None) -> None:
        self.calls.append(("step", record.step, spent["steps"], share))
        if record.step == self.at:
            self.act()

    def say(self, message: str) -> None:
        self.calls.append(("say", message))

    def close(self) -> None:
        self.calls.append(("close",))


def interrupt(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


# ---- the directory ------------------------------------------------------------------------------------------------------------------


def test_a_run_directory_holds_what_readers_expect(finished: Result, finished_folder: Path) -> None:
    assert sorted(path.name for path in finished_folder.iterdir()) == [
        "checkpoints", "journal.jsonl", "model", "plan.json", "recipe.yaml", "report.html", "result.json",
    ]  # fmt: skip
    assert outlay.load_recipe(finished_folder / "recipe.yaml") == examined()
    assert [path.name for path in checkpoints(finished_folder / "checkpoints")] == ["step-00000050", "step-00000060"]
    assert finished.exit_code == 0 and audit(finished_folder) == []


def test_the_journal_tells_it_all_in_order(finished_folder: Path) -> None:
    journal = read_journal(finished_folder)
    kinds = [line["kind"] for line in journal]
    assert [line["n"] for line in journal] == list(range(len(journal)))
    assert kinds[:6] == ["run", "decision", "evaluation", "plan", "stage", "checkpoint"] and kinds[-3:] == ["evaluation", "end", "closed"]
    assert kinds.count("step") == 60 and kinds.count("checkpoint") == 7 and kinds.count("evaluation") == 5
    head = journal[0]
    assert head["format"] == 1 and head["name"] == "digits" and head["seed"] == 0 and head["budget"] == "60 steps"
    assert (head["limits"], head["ceilings"], head["price"]) == ({"steps": 60.0}, {}, None)
    assert (head["precision"], head["threads"], head["processes"], head["device"]) == ("fp32", 1, 1, "cpu")
    assert head["parameters"] == head["trainable"] == 2410 and head["versions"]["torch"] == torch.__version__
    assert outlay.load_recipe(head["recipe"]) == examined()
    steps = [line for line in journal if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 61)) and [line["progress"] for line in steps] == [k / 60 for k in range(60)]
    assert set(steps[0]) >= {"step", "stage", "progress", "loss", "gradient_norm", "knobs", "outcome", "metrics"}
    assert journal[-2]["ended_by"] == "steps" and journal[-2]["message"] == ""


def test_the_final_weights_are_those_of_the_last_checkpoint(finished_folder: Path) -> None:
    saved = load_checkpoint(checkpoints(finished_folder / "checkpoints")[-1]).tensors["model"]
    final = safetensors.torch.load_file(finished_folder / "model" / "model.safetensors")
    assert final.keys() == saved.keys() and all(torch.equal(final[name], saved[name]) for name in saved)


def test_transformers_loads_the_final_weights(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    outlay.run(language(budget="2 steps"), tmp_path / "run")
    saved = load_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[-1]).tensors["model"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert all(torch.equal(dict(model.named_parameters())[name], tensor) for name, tensor in saved.items())
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model")("ab")["input_ids"]


def test_runs_are_numbered_in_the_order_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert outlay.run(digits(budget="1 steps")).folder == str(Path("runs", f"digits-{number}"))
    (tmp_path / "empty").mkdir()
    assert outlay.run(digits(budget="1 steps"), "empty").folder == "empty"


def test_a_display_is_told_everything(tmp_path: Path) -> None:
    watching = Watching()
    outlay.run(digits(budget="5 steps", evaluate={"exams": [EXAM]}), tmp_path / "run", display=watching)
    assert watching.calls[0] == ("start", Budget.parse("5 steps"), {"steps": 5.0}) and watching.calls[-1] == ("close",)
    assert [call for call in watching.calls if call[0] == "step"] == [("step", k, float(k), k / 5) for k in range(1, 6)]
    said = [call[1] for call in watching.calls if call[0] == "say"]
    assert any(text.startswith("evaluation (start): held_out/loss") for text in said) and "stage train" in said


# ---- refused ------------------------------------------------------------------------------------------------------------------------


def test_a_directory_in_use_is_refused(finished_folder: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in finished_folder.iterdir())
    with pytest.raises(InputError, match="exists and is not empty; choose another directory, or resume the run in it"):
        outlay.run(digits(), finished_folder)
    assert sorted(path.name for path in finished_folder.iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="exists and is not empty"):
        outlay.run(digits(), tmp_path / "file")


def test_an_ended_run_cannot_be_gone_on_with(finished_folder: Path) -> None:
    before = (finished_folder / "journal.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"has ended on its budget \(steps\); start a new one"):
        outlay.resume(finished_folder)
    assert (finished_folder / "journal.jsonl").read_bytes() == before


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for call in (outlay.resume, outlay.replay):
        with pytest.raises(InputError, match="is not a run directory"):
            call(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_creates_nothing(tmp_path: Path) -> None:
    wrong = [
        digits(budget="9 steps, 100 params"),
        digits(budget="9 steps, 10KB"),
        digits(evaluate={"exams": [{"held_out_loss": {"objective": "classification", "source": {"text": {"texts": ["a"]}}}}]}),
        language(stages=[{"source": {"text": {"path": "no/such/file.txt"}}}]),
    ]
    for recipe in wrong:
        with pytest.raises(InputError):
            outlay.run(recipe, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_budget_that_setting_up_uses_up_is_refused(tmp_path: Path) -> None:
    clock = FakeClock(100.0)
    with pytest.raises(InputError, match=r"5s are used up by setting up \(9 seconds\), so nothing is left to train with; raise it"):
        outlay.run(digits(budget="5s"), tmp_path / "run", clock=clock, began=91.0)
    assert list(tmp_path.iterdir()) == []


# ---- not the run's own fault --------------------------------------------------------------------------------------------------------


def test_a_report_that_fails_does_not_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Path:
        raise RuntimeError("no ink")

    monkeypatch.setattr(finishing, "write_report", fail)
    result = outlay.run(digits(budget="4 steps"), tmp_path / "run")
    assert result.exit_code == 0 and (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert result.warnings == [f"the report could not be written: no ink; try again with: outlay report {tmp_path / 'run'}"]
    assert result_of(tmp_path / "run")["warnings"] == result.warnings and audit(tmp_path / "run") == []
    assert [line["message"] for line in lines(tmp_path / "run", "warning")] == result.warnings


def test_weights_that_cannot_be_written_are_in_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def full(source: Path, target: Path) -> None:
        if target.name == "model":
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(exporting.os, "rename", full)
    result = outlay.run(digits(budget="4 steps"), tmp_path / "run")
    assert result.exit_code == 0 and not (tmp_path / "run" / "model").exists()
    assert "could not be written to model/ (No space left on device); they are in the last checkpoint" in result.warnings[0]


def test_an_error_in_the_middle_closes_the_books_and_can_be_gone_on_from(tmp_path: Path, finished_folder: Path) -> None:
    def fail() -> None:
        raise RuntimeError("a cosmic ray")

    with pytest.raises(RuntimeError, match="a cosmic ray"):
        outlay.run(examined(), tmp_path / "run", display=Watching(33, fail))
    told = result_of(tmp_path / "run")
    assert (told["exit_code"], told["ended_by"]) == (4, "failure") and audit(tmp_path / "run") == []
    assert lines(tmp_path / "run", "end")[0]["message"] == "RuntimeError: a cosmic ray"
    result = outlay.resume(tmp_path / "run")
    assert result.exit_code == 0 and result.lost["steps"] == 3 and weights(tmp_path / "run") == weights(finished_folder)
    assert audit(tmp_path / "run") == []


# ---- stopped and gone on with -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_in_good_order(number: signal.Signals, tmp_path: Path, finished_folder: Path) -> None:
    folder = tmp_path / "run"
    stopped = outlay.run(examined(), folder, display=Watching(33, lambda: interrupt(number)))
    assert (stopped.exit_code, stopped.ended_by, stopped.steps) == (3, "signal", 33)
    assert result_of(folder)["ended_by"] == "signal" and (folder / "report.html").is_file() and not (folder / "model").exists()
    assert checkpoints(folder / "checkpoints")[-1].name == "step-00000033" and audit(folder) == []
    assert lines(folder, "end")[0]["message"] == f"stopped by {number.name}; go on with: outlay resume {folder}"
    result = outlay.resume(folder)
    assert (result.exit_code, result.ended_by, result.steps) == (0, "steps", 60)
    assert "steps" not in result.lost and weights(folder) == weights(finished_folder)
    assert audit(folder) == [] and [stage["steps"] for stage in result.stages] == [60]
    assert result.metrics == result_of(finished_folder)["metrics"] and result.metrics_start == result_of(finished_folder)["metrics_start"]


def test_a_run_that_another_process_is_spending_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    refused: list[str] = []

    def resume_meanwhile() -> None:
        with pytest.raises(InputError, match="another process is spending the run in") as error:
            outlay.resume(folder)
        refused.append(str(error.value))

    result = outlay.run(digits(budget="5 steps"), folder, display=Watching(3, resume_meanwhile))
    assert len(refused) == 1 and result.exit_code == 0 and lines(folder, "resume") == []


def test_controllers_survive_a_stop(tmp_path: Path) -> None:
    plateau = {"metric": "loss", "patience": 0, "threshold": 0.2, "factor": 0.7}
    recipe = digits(budget="40 steps", stages=[plain_stage(knobs={"lr": {"peak": 0.01, "schedule": {"plateau": plateau}}})])
    outlay.run(recipe, tmp_path / "whole")
    outlay.run(recipe, tmp_path / "halves", display=Watching(17, interrupt))
    outlay.resume(tmp_path / "halves")
    rates = [[line["knobs"]["lr"] for line in lines(tmp_path / name, "step")] for name in ("whole", "halves")]
    assert rates[0] == rates[1] and len(set(rates[0])) > 5
    assert weights(tmp_path / "whole") == weights(tmp_path / "halves")


# ---- recipes that YAML cannot hold --------------------------------------------------------------------------------------------------


def in_python() -> Recipe:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return dataclasses.replace(with_objective(digits(budget="20 steps"), Poisoned()), model=module)  # type: ignore[arg-type]


def test_a_recipe_made_in_python_is_gone_on_with_by_giving_it_again(tmp_path: Path) -> None:
    outlay.run(in_python(), tmp_path / "whole")
    outlay.run(in_python(), tmp_path / "run", display=Watching(7, interrupt))
    with pytest.raises(InputError, match=r"(?s)the run's recipe cannot be read back .*if it was made in Python, pass recipe="):
        outlay.resume(tmp_path / "run")
    result = outlay.resume(tmp_path / "run", recipe=in_python())
    assert result.exit_code == 0 and weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_another_recipe_than_the_runs_is_refused(tmp_path: Path) -> None:
    outlay.run(digits(), tmp_path / "run", display=Watching(7, interrupt))
    before = (tmp_path / "run" / "checkpoints").stat().st_mtime_ns
    with pytest.raises(InputError, match="the saved weights are of another model"):
        outlay.resume(tmp_path / "run", recipe=digits(model={"mlp": {"inputs": 64, "classes": 10, "hidden": [32, 8]}}))
    assert (tmp_path / "run" / "checkpoints").stat().st_mtime_ns == before


# ---- checkpoints that cannot be used ------------------------------------------------------------------------------------------------


def test_a_broken_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path, finished_folder: Path) -> None:
    folder = tmp_path / "run"
    outlay.run(examined(), folder, display=Watching(33, interrupt))
    victim = folder / "checkpoints" / "step-00000033" / "optimizer.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x00")
    result = outlay.resume(folder)
    assert lines(folder, "resume")[0]["from_step"] == 30 and result.lost["steps"] == 3
    assert any(str(victim) in warning for warning in result.warnings)
    assert weights(folder) == weights(finished_folder) and audit(folder) == []


def test_without_a_whole_checkpoint_nothing_is_touched(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    outlay.run(examined(), folder, display=Watching(3, interrupt))
    for path in checkpoints(folder / "checkpoints"):
        (path / "state.json").write_text("{}")
    before = (folder / "journal.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="no checkpoint in .* can be used: .*step-00000003.*state.json.*step-00000000"):
        outlay.resume(folder)
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_checkpoint_holds_tensors_and_plain_values_alone(finished_folder: Path) -> None:
    saved = load_checkpoint(checkpoints(finished_folder / "checkpoints")[-1])
    assert saved.tensors.keys() == {"model", "optimizer"}
    assert saved.plain["step"] == 60 and saved.plain["cursor"]["cursor"] == 60 * 32 and saved.plain["stages"] == []
    assert json.loads(json.dumps(saved.plain)) == saved.plain
