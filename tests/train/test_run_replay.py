"""Replay: a run whose progress came from the clock is repeated bit by bit from its journal."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from small_runs import EXAM, At, Paced, Poisoned, child, digits, lines, paced, plain_stage, result_of, wait, weights, with_objective
from test_run import Watching, interrupt

import outlay
from outlay.errors import InputError
from outlay.knob import Knob
from outlay.testing import FakeClock
from outlay.train import Recipe, Result
from outlay.train.assembly import assemble
from outlay.train.journal import effective, read_journal

PLATEAU = {"metric": "held_out/loss", "patience": 0, "threshold": 0.5, "factor": 0.5}


def timed(clock: FakeClock, **changes: Any) -> Recipe:
    """A recipe limited by seconds on a simulated clock: two stages, evaluations, a controller that answers to them."""
    stages = [plain_stage(name="first"), plain_stage(name="second", knobs={"lr": {"peak": 0.01, "schedule": {"plateau": PLATEAU}}})]
    plain = {"budget": "6s", "stages": stages, "evaluate": {"exams": [EXAM], "every": 0.2}, "checkpoints": {"every_seconds": 0.7}}
    return paced(digits(**{**plain, **changes}), clock, 0.0025)


def repeat(folder: Path, recipe: Recipe | None) -> Result:
    """Replay a run and hold what it took against what the journal says."""
    again = folder.parent / "again"
    result = outlay.replay(folder, again, recipe=recipe)
    assert weights(again) == weights(folder)
    steps = [line for line in effective(read_journal(folder)) if line["kind"] == "step"]
    repeated = lines(again, "step")
    for key in ("step", "stage", "progress", "loss", "knobs", "outcome"):
        # compared as texts, since what is not a number is not even equal to itself
        assert [str(line[key]) for line in repeated] == [str(line[key]) for line in steps], key
    assert lines(again, "run")[0]["replay"] is True and result.exit_code == 0
    assert result.ended_by == result_of(folder)["ended_by"] and result.metrics == result_of(folder)["metrics"]
    assert [(stage["name"], stage["steps"]) for stage in result.stages] == [
        (stage["name"], stage["steps"]) for stage in result_of(folder)["stages"]
    ]
    return result


def test_a_run_limited_by_seconds_is_repeated(tmp_path: Path) -> None:
    clock = FakeClock()
    outlay.run(timed(clock), tmp_path / "run", clock=clock)
    result = repeat(tmp_path / "run", timed(FakeClock()))
    assert result.ended_by == "seconds" and [stage["name"] for stage in result.stages] == ["first", "second"]
    rates = {line["knobs"]["lr"] for line in lines(tmp_path / "run", "step") if line["stage"] == "second"}
    assert len(rates) > 2  # the controller has acted on evaluations


def test_on_the_real_clock_and_from_its_own_recipe(tmp_path: Path) -> None:
    recipe = digits(budget="2s", evaluate={"exams": [EXAM], "every": 0.25})
    assemble(recipe)  # what is imported and read for the first time may take longer than the budget
    first = outlay.run(recipe, tmp_path / "run")
    assert first.ended_by == "seconds" and first.steps > 1
    assert repeat(tmp_path / "run", None).steps == first.steps
    assert outlay.replay(tmp_path / "run").folder == str(tmp_path / "run-replay")


def test_evaluations_that_were_left_out_are_left_out_again(tmp_path: Path) -> None:
    """A controller that answers to evaluations would otherwise see one that never was."""
    clock = FakeClock()
    evaluate = {"exams": [{"held_out_loss": {"objective": "classification", "examples": 256}}], "every": 0.2}
    outlay.run(timed(clock, evaluate=evaluate), tmp_path / "run", clock=clock)
    left_out = [line for line in lines(tmp_path / "run", "decision") if "left out" in line["what"]]
    assert left_out
    repeat(tmp_path / "run", timed(FakeClock(), evaluate=evaluate))
    assert [line["step"] for line in lines(tmp_path / "again", "evaluation")] == [
        line["step"] for line in lines(tmp_path / "run", "evaluation")
    ]


def test_roll_backs_are_repeated_from_the_same_checkpoints(tmp_path: Path) -> None:
    """The run was saved by the clock, and where it went back to depends on when that was."""

    def poisoned(clock: FakeClock) -> Recipe:
        recipe = digits(budget="5s or 50 steps", checkpoints={"every_seconds": 0.5}, health={"nonfinite": "roll_back"})
        objective = Poisoned(inner=Paced(clock, 0.0025))  # type: ignore[arg-type]
        return with_objective(recipe, objective, poison=Knob(1.0, At((0.0,))), lr=0.003)

    clock, run = FakeClock(), tmp_path / "run"
    recipe = poisoned(clock)
    spoilt = with_objective(recipe, recipe.stages[0].objective, poison=Knob(1.0, _Late()))
    outlay.run(spoilt, run, clock=clock)
    back = [line["what"] for line in lines(run, "decision") if "rolled back" in line["what"]]
    assert len(back) > 1 and len(set(back)) > 1
    again = with_objective(poisoned(FakeClock()), Poisoned(), poison=Knob(1.0, _Late()))
    repeat(run, again)
    assert [line["what"] for line in lines(tmp_path / "again", "decision") if "rolled back" in line["what"]] == back


class _Late:
    """Not 0 in narrow bands of progress."""

    def value(self, progress: float) -> float:
        return float(int(progress * 50) in (11, 23, 24, 41))


def test_a_killed_and_resumed_run_is_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def die_at_30() -> None:
        clock = FakeClock()
        outlay.run(timed(clock), folder, clock=clock, display=Watching(30, lambda: os.kill(os.getpid(), signal.SIGKILL)))

    assert wait(child(die_at_30)) == -signal.SIGKILL
    clock = FakeClock()
    result = outlay.resume(folder, recipe=timed(clock), clock=clock)
    assert result.lost["steps"] > 0 and result.accounts["lost"]["seconds"] > 0 and result.spent["seconds"] <= 6.0
    repeat(folder, timed(FakeClock()))


def test_a_stopped_and_resumed_run_is_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    clock = FakeClock()
    outlay.run(timed(clock), folder, clock=clock, display=Watching(20, interrupt))
    with pytest.raises(InputError, match="has not ended; resume it first"):
        outlay.replay(folder, recipe=timed(FakeClock()))
    outlay.resume(folder, recipe=timed(clock), clock=clock)
    repeat(folder, timed(FakeClock()))


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe = digits()
    work = lambda: outlay.run(recipe, folder, display=Watching(5, lambda: os.kill(os.getpid(), signal.SIGKILL)))  # noqa: E731
    assert wait(child(work)) == -signal.SIGKILL
    with pytest.raises(InputError, match=r"has not ended; resume it first \(outlay resume "):
        outlay.replay(folder)
    assert not (tmp_path / "run-replay").exists()


def test_a_replay_is_no_run_to_go_on_with(tmp_path: Path) -> None:
    outlay.run(digits(budget="9 steps"), tmp_path / "run")
    stopped = outlay.replay(tmp_path / "run", tmp_path / "again", display=Watching(4, interrupt))
    assert stopped.exit_code == 3
    with pytest.raises(InputError, match="holds a replay, .*replay that run again"):
        outlay.resume(tmp_path / "again")
    with pytest.raises(InputError, match="exists and is not empty"):
        outlay.replay(tmp_path / "run", tmp_path / "again")
