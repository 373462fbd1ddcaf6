"""Mixtures in a run: the loop tells the stream what came of its steps and evaluations, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_runs import SCHEDULE, audit, digits, lines, plain_stage, result_of, weights
from test_run_processes import difference, spent

import outlay
from outlay.record import Record
from outlay.reporting import Quiet
from outlay.sources.mixture import Mixture, MixtureStream
from outlay.train import Recipe, load_recipe
from outlay.train.checkpoint import checkpoints, load_checkpoint


class StopAt(Quiet):
    """Asks a run to stop after a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, record: Record, spent: Mapping[str, float], share: float, seconds_left: float | None) -> None:
        if record.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def recipe(**teacher: Any) -> Recipe:
    """Two bundled corpora under Skill-It, evaluated after every quarter."""
    corpora = {name: {"text": {"corpus": name, "length": 32, "limit_tokens": 8192}} for name in ("verse", "code")}
    return load_recipe({
        "name": "mixture",
        "budget": "12 steps",
        "model": {"transformer": {"hidden": 32, "layers": 1, "heads": 2, "context": 32, "tokenizer": "bytes"}},
        "stages": [{
            "source": {"mixture": {"domains": corpora, "teacher": {"skill_it": {"graph": {"verse": {"code": 0.5}}, "eta": 2.0, **teacher}}}},
            "batch_size": 8,
            "knobs": {"lr": {"peak": 0.003, "schedule": SCHEDULE}},
        }],
        "evaluate": {"exams": [{"domain_losses": {"examples": 8}}], "every": 0.25},
        "checkpoints": {"every_steps": 5},
        "threads": 1,
    })  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody stops."""
    folder = tmp_path_factory.mktemp("mixture") / "run"
    outlay.run(recipe(), folder)
    return folder


def state_of(folder: Path) -> dict[str, Any]:
    """The stream's state in the newest checkpoint."""
    state: dict[str, Any] = load_checkpoint(checkpoints(folder / "checkpoints")[-1]).plain["cursor"]
    return state


def test_the_run_ends_on_its_budget_and_every_exam_is_charged(alone: Path) -> None:
    told = result_of(alone)
    assert told["ended_by"] == "steps" and told["steps"] == 12 and audit(alone) == []
    assert {"held_out_loss/verse", "held_out_loss/code"} <= set(told["metrics"])
    assert told["accounts"]["eval"]["examples"] == 16 * len(lines(alone, "evaluation"))


def test_the_teacher_saw_progress_and_every_evaluation_of_the_stage(alone: Path) -> None:
    state, seen = state_of(alone), lines(alone, "evaluation")
    during = [line["metrics"] for line in seen if line["when"] == "during"]
    assert len(during) == 3
    assert state["lessons"]["latest"] == [[metrics["held_out_loss/verse"], metrics["held_out_loss/code"]] for metrics in during]
    assert state["cursor"] == 96 and state["progress"] == pytest.approx(11 / 12)
    assert sum(domain["cursor"] for domain in state["domains"].values()) == 96
    shares = state["lessons"]["shares"]
    assert shares != pytest.approx([0.5, 0.5], abs=0.01) and sum(shares) == pytest.approx(1)


def test_every_step_says_what_its_examples_are_mixed_of(alone: Path) -> None:
    shares = [(line["metrics"]["share/verse"], line["metrics"]["share/code"]) for line in lines(alone, "step")]
    assert len(shares) == 12 and all(sum(pair) == pytest.approx(1) for pair in shares)
    assert len(set(shares)) == 4  # one for each round between evaluations


def test_losses_change_what_is_read(alone: Path, tmp_path: Path) -> None:
    outlay.run(recipe(eta=0.0), tmp_path / "even")
    read = [{name: domain["cursor"] for name, domain in state_of(folder)["domains"].items()} for folder in (alone, tmp_path / "even")]
    assert read[0]["verse"] > read[1]["verse"]


@pytest.mark.parametrize("step", [2, 7])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(step: int, alone: Path, tmp_path: Path) -> None:
    stopped = outlay.run(recipe(), tmp_path / "run", display=StopAt(step))
    assert (stopped.ended_by, stopped.steps) == ("signal", step)
    assert outlay.resume(tmp_path / "run").steps == 12
    assert weights(tmp_path / "run") == weights(alone)
    assert state_of(tmp_path / "run") == state_of(alone)
    assert result_of(tmp_path / "run")["metrics"] == result_of(alone)["metrics"]


def test_a_stream_that_watches_reads_every_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Record] = []
    observe = MixtureStream.observe
    monkeypatch.setattr(MixtureStream, "observe", lambda self, record: (seen.append(record), observe(self, record))[1])
    source = {"mixture": {"domains": {"one": {"images": {"name": "digits"}}, "two": {"images": {"name": "digits"}}}}}
    exam = {"domain_losses": {"objective": "classification", "examples": 8}}
    outlay.run(digits(budget="4 steps", stages=[plain_stage(source=source)], evaluate={"exams": [exam], "every": 0.5}), tmp_path / "run")
    assert [(record.kind, record.step) for record in seen] == [("step", 1), ("step", 2), ("evaluation", 2), ("step", 3), ("step", 4)]
    assert {"held_out_loss/one", "held_out_loss/two"} <= set(seen[2].metrics)


def test_a_recipe_describes_its_mixture(alone: Path) -> None:
    again = load_recipe(alone / "recipe.yaml")
    source = again.stages[0].source
    assert isinstance(source, Mixture) and source == recipe().stages[0].source


def test_two_processes_read_the_same_mixture(tmp_path: Path) -> None:
    """Each keeps its own rows of the batches that one process would have read, and both move all cursors alike."""
    domains = {name: {"images": {"name": "digits"}} for name in ("one", "two")}
    source = {"mixture": {"domains": domains, "teacher": {"skill_it": {"eta": 5.0}}}}
    exam = {"domain_losses": {"objective": "classification", "examples": 8}}
    asked = digits(
        budget="8 steps",
        model={"mlp": {"inputs": 64, "classes": 10, "hidden": [32]}},
        stages=[plain_stage(source=source, batch_size=15)],
        evaluate={"exams": [exam], "every": 0.5},
    )
    outlay.run(asked, tmp_path / "alone")
    assert [answer["steps"] for answer in spent(asked, tmp_path / "run")] == [8, 8]
    mine, theirs = state_of(tmp_path / "run"), state_of(tmp_path / "alone")
    assert mine["domains"] == theirs["domains"] and mine["cursor"] == theirs["cursor"] == 120
    assert mine["lessons"]["shares"] == pytest.approx(theirs["lessons"]["shares"], rel=1e-4)
    assert difference(tmp_path / "run", tmp_path / "alone") <= 1e-5
