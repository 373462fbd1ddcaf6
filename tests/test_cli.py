"""The command line: what each command prints and leaves behind, and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

import outlay
from outlay import cli
from outlay.catalog import FAMILIES, listing
from outlay.train import assembly, load_recipe, loop
from outlay.train.checkpoint import checkpoints
from outlay.train.journal import read_journal

RECIPE: dict[str, Any] = {
    "name": "digits",
    "budget": "20 steps",
    "model": {"mlp": {"inputs": 64, "classes": 10, "hidden": [16], "dropout": 0.1}},
    "stages": [
        {
            "source": {"images": {"name": "digits"}},
            "objective": "classification",
            "batch_size": 16,
            "knobs": {"lr": {"peak": 0.003, "schedule": "rex"}},
        }
    ],
    "evaluate": {"exams": [{"held_out_loss": {"objective": "classification", "examples": 32}}]},
    "threads": 1,
}


@dataclass(frozen=True)
class Said:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Run the command line in this process: ``call("run", "recipe.yaml")``."""

    def called(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["outlay", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        told = capsys.readouterr()
        return Said(int(stop.value.code or 0), told.out, told.err)

    return called


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe file in an otherwise empty working directory."""
    monkeypatch.chdir(tmp_path)
    return written(RECIPE)


def written(plain: dict[str, Any]) -> Path:
    path = Path("recipe.yaml")
    path.write_text(yaml.safe_dump(plain))
    return path


def changed(path: str, value: Any) -> dict[str, Any]:
    """The recipe with the value at a dotted path replaced; None removes it."""
    plain = json.loads(json.dumps(RECIPE))
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = plain
    for step in steps:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return dict(plain)


# ---- methods ------------------------------------------------------------------------------------------------------------------------


def test_methods_as_json_hold_the_whole_catalog(call: Any) -> None:
    said = call("methods", "--json")
    entries = json.loads(said.out)
    assert said.code == 0 and [entry["name"] for entry in entries] == [entry.name for entry in listing()]
    for entry in entries:
        assert set(entry) == {"name", "family", "title", "paper", "summary", "fields"}
        assert entry["family"] in FAMILIES and entry["name"].startswith(entry["family"] + "/") and entry["summary"] and entry["title"]
        assert all(set(field) == {"name", "type", "default", "required"} for field in entry["fields"])
    rex = next(entry for entry in entries if entry["name"] == "schedules/rex")
    assert rex["paper"]["arxiv"] == "2107.04197"
    assert {"name": "beta", "type": "float", "default": 0.5, "required": False} in rex["fields"]


def test_methods_of_one_family_as_a_table(call: Any) -> None:
    said = call("methods", "--family", "optim")
    assert said.code == 0 and "optim/adamw" in said.out and "schedules/" not in said.out and "1711.05101" in said.out
    wrong = call("methods", "--family", "optimm")
    assert wrong.code == 2 and wrong.err == "outlay: there is no family 'optimm'; did you mean 'optim'?\n"


# ---- plan ---------------------------------------------------------------------------------------------------------------------------


def test_plan_as_text_and_json(call: Any, recipe: Path) -> None:
    text = call("plan", recipe)
    assert text.code == 0 and "20 steps" in text.out and "ends by" in text.out and "memory" in text.out
    told = json.loads(call("plan", recipe, "--json", "--budget", "1000 examples", "--set", "stages[0].batch_size=100").out)
    keys = {"parameters", "trainable", "micro_batch", "memory", "flops_per_step", "tokens_per_step", "step_seconds", "basis", "steps"}
    assert set(told) >= keys | {"tokens", "seconds", "flops", "ends_by", "reserve", "notes"}
    assert set(told["memory"]) == {"weights", "gradients", "optimizer", "activations", "total"}
    # 32 before and 32 after leave 936
    assert (told["steps"], told["ends_by"], told["basis"], told["reserve"]["examples"]) == (9, "examples", "formula", 32.0)
    assert json.loads(call("plan", recipe, "--json", "--probe").out)["basis"] == "probe"
    assert [path.name for path in Path().iterdir()] == ["recipe.yaml"]


def test_plan_refuses_what_run_refuses(call: Any, recipe: Path) -> None:
    said = call("plan", recipe, "--budget", "20 steps, 100 params")
    assert said.code == 2 and "the budget's ceiling is 100" in said.err and said.out == ""


# ---- run, replay, report ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended; read only."""
    folder = tmp_path_factory.mktemp("ended") / "run"
    outlay.run(load_recipe(RECIPE), folder)
    return folder


def test_run_takes_budget_settings_and_directory(call: Any, recipe: Path) -> None:
    lived = time.monotonic() - cli._process_began()
    said = call("run", recipe, "--budget", "7 steps", "--set", "seed=3", "--set", "stages[0].knobs.lr.peak=1e-2", "--out", "here")
    assert said.code == 0 and "held_out/loss" in said.out and said.err == ""
    result = json.loads(Path("here", "result.json").read_text())
    assert (result["steps"], result["seed"], result["exit_code"], result["ended_by"]) == (7, 3, 0, "steps")
    kept = load_recipe(Path("here", "recipe.yaml"))
    assert kept.stages[0].knobs["lr"].peak == 0.01 and str(kept.budget) == "7 steps"
    assert result["accounts"]["setup"]["seconds"] > lived - 1  # what the process did before is on the books
    again = call("run", recipe, "--budget", "2 steps")
    assert again.code == 0 and Path("runs", "digits-1", "report.html").is_file()
    used = call("run", recipe, "--out", "here")
    assert used.code == 2 and "exists and is not empty" in used.err


def test_replay_repeats_a_run(call: Any, ended: Path, tmp_path: Path) -> None:
    said = call("replay", ended, "--out", tmp_path / "again")
    assert said.code == 0
    assert (tmp_path / "again/model/model.safetensors").read_bytes() == (ended / "model/model.safetensors").read_bytes()


def test_resume_refuses_what_has_ended_and_what_is_no_run(call: Any, ended: Path, tmp_path: Path) -> None:
    said = call("resume", ended)
    assert said.code == 2 and "has ended on its budget (steps)" in said.err
    for command in ("resume", "replay", "report"):
        nowhere = call(command, tmp_path / "nowhere")
        assert nowhere.code == 2 and "nowhere" in nowhere.err and nowhere.err.startswith("outlay: ")
    assert list(tmp_path.iterdir()) == []


def test_report_of_one_run_and_of_two(call: Any, ended: Path, recipe: Path) -> None:
    call("run", recipe, "--set", "name=other", "--set", "seed=1", "--out", "other")
    Path("other", "report.html").unlink()
    one = call("report", "other")
    assert one.code == 0 and "report: other/report.html" in one.out.replace("\n", "") and Path("other", "report.html").is_file()
    two = call("report", "other", ended, "--html", "both.html")
    page = Path("both.html").read_text()
    assert two.code == 0 and "report: both.html" in two.out and "other" in page and "digits" in page
    assert len(page) > len(Path("other", "report.html").read_text())


# ---- wrong input --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plain", "arguments", "message"),
    [
        (changed("budget", "5 epochs"), (), "cannot read '5 epochs'"),
        (changed("budget", "100M"), (), "cannot read '100M'"),
        (changed("budget", "20k rollouts"), (), "no stage spends any"),
        (changed("budget", None), (), "the field 'budget' is missing"),
        (changed("sead", 3), (), "did you mean 'seed'"),
        (changed("stages.0.optimizer", "adamx"), (), "did you mean 'optim/adamw'"),
        (changed("stages.0.knobs.lr.schedule", "rexx"), (), "did you mean 'schedules/rex'"),
        (changed("stages.0.knobs.momentun", 0.9), (), "no part of this stage reads the knob 'momentun'"),
        (changed("model.mlp.dropout", 1.5), (), "dropout must lie in [0, 1)"),
        (changed("name", "../x"), (), "names a directory"),
        (changed("budget", "20 steps, 100 params"), (), "the budget's ceiling is 100"),
        (changed("budget", "20 steps, 10KB"), (), "even one example"),
        (changed("budget", "32 examples"), (), "nothing is left to train on"),
        (changed("stages.0.source", {"text": {"path": "no/such.txt"}}), (), "the model reads no text"),
        (RECIPE, ("--set", "stages[7].share=2"), "the recipe has nothing at 7"),
        (RECIPE, ("--set", "sead=2"), "did you mean 'seed'"),
        (RECIPE, ("--budget", "soon"), "cannot read 'soon'"),
        (RECIPE, ("--frobnicate",), "No such option"),
    ],
)
def test_wrong_input_exits_with_2_and_leaves_nothing(
    plain: dict[str, Any], arguments: tuple[str, ...], message: str, call: Any, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = mock.Mock(side_effect=assembly.Accelerator)
    monkeypatch.setattr(assembly, "Accelerator", touched)
    said = call("run", written(plain), *arguments)
    assert said.code == 2 and message in said.err and "Traceback" not in said.err
    assert [path.name for path in Path().iterdir()] == ["recipe.yaml"]
    # what can be known from the recipe alone is refused before a device is taken
    assert not touched.called or message == "nothing is left to train on"


def test_several_problems_are_told_at_once_with_their_lines(call: Any, recipe: Path) -> None:
    said = call("run", written(changed("sead", 3) | {"precision": "fp8", "budget": "soon"}))
    assert said.code == 2 and "recipe.yaml: 3 problems" in said.err
    assert all(f"  - {where} (line " in said.err for where in ("sead", "precision", "budget"))


def test_an_unknown_recipe_gets_the_nearest_name(call: Any, recipe: Path) -> None:
    said = call("run", "quickstrat")
    assert said.code == 2 and "there is no recipe file 'quickstrat'" in said.err and "did you mean 'quickstart'" in said.err


def test_numbers_that_break_exit_with_4(call: Any, recipe: Path) -> None:
    broken = changed("stages.0.knobs.lr", 1e38) | {"health": {"nonfinite": "stop"}}
    said = call("run", written(broken), "--set", "stages[0].optimizer=sgd", "--out", "here")
    assert said.code == 4 and "not finite at step" in said.err and "(run directory: here)" in said.err
    assert json.loads(Path("here", "result.json").read_text())["exit_code"] == 4


def test_help_says_what_there_is(call: Any) -> None:
    said = call("--help")
    assert said.code == 0
    for command in ("plan", "run", "resume", "replay", "report", "methods"):
        assert command in said.out and call(command, "--help").code == 0
    assert "Exit codes: 0 spent, 2 wrong input, 3 stopped by a signal" in " ".join(said.out.split())
    assert call().code == 2  # no command


def test_help_and_methods_import_no_torch() -> None:
    code = "import sys; import outlay, outlay.cli; assert not {'torch', 'transformers', 'accelerate'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


# ---- signals ------------------------------------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(outlay.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def wait_for(ready: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.005)


def test_sigterm_stops_a_process_in_good_order_and_resume_finishes_it(call: Any, recipe: Path) -> None:
    path = written(RECIPE | {"budget": "400 steps"})
    process = subprocess.Popen(
        [sys.executable, "-m", "outlay.cli", "run", str(path), "--out", "here"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    folder = Path("here")
    wait_for(lambda: (folder / "journal.jsonl").exists() and (folder / "journal.jsonl").read_bytes().count(b'"kind":"step"') > 20)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 3, err
    stopped = json.loads((folder / "result.json").read_text())
    assert stopped["ended_by"] == "signal" and 20 < stopped["steps"] < 400 and (folder / "report.html").is_file()
    assert checkpoints(folder / "checkpoints")[-1].name == f"step-{stopped['steps']:08d}" and not (folder / "model").exists()
    assert read_journal(folder)[-2]["message"] == "stopped by SIGTERM; go on with: outlay resume here"
    said = call("resume", folder)
    assert said.code == 0 and json.loads((folder / "result.json").read_text())["steps"] == 400
    outlay.run(load_recipe(path), "whole")
    assert (folder / "model/model.safetensors").read_bytes() == Path("whole/model/model.safetensors").read_bytes()


def test_a_second_interrupt_exits_with_130_at_once(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one waits for the step that is under way, and this step takes for ever."""
    folder = Path("here").absolute()
    process = os.fork()
    if not process:
        real = loop.update

        def stuck(*arguments: Any) -> Any:
            if arguments[4] == 5:
                time.sleep(300)
            return real(*arguments)

        loop.update = stuck  # type: ignore[assignment]
        sys.argv = ["outlay", "run", str(recipe), "--out", str(folder)]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            cli.main()
        finally:
            os._exit(99)
    wait_for(lambda: (folder / "journal.jsonl").exists() and (folder / "journal.jsonl").read_bytes().count(b'"kind":"step"') == 4)
    time.sleep(0.2)
    os.kill(process, signal.SIGINT)
    time.sleep(0.3)
    assert os.waitpid(process, os.WNOHANG) == (0, 0)  # still waiting for its step
    began = time.monotonic()
    os.kill(process, signal.SIGINT)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130 and time.monotonic() - began < 5
    assert outlay.resume(folder).steps == 20
