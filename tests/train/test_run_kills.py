"""Kill -9 at chosen instants of a run in two stages: what is resumed ends with the weights of a run that was left alone, and the books say
what was lost."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import EXAM, audit, child, digits, lines, plain_stage, result_of, wait, weights

import outlay
from outlay.errors import InputError
from outlay.meter import LOST, Meter
from outlay.train import Recipe, checkpoint, finishing, update
from outlay.train.pace import Reserve

#: the module; the package shows its function under the same name
run = importlib.import_module("outlay.train.run")

#: examples of an update's 4 pieces; pieces are numbered step * 4096 + 0 ... 3
PIECE = 8


def recipe() -> Recipe:
    """Two stages of 20 steps in 4 pieces each; dropout, a controller, evaluations, a checkpoint every 5 steps."""
    plateau = {"peak": 0.003, "schedule": {"plateau": {"patience": 1, "threshold": 0.05, "factor": 0.7}}}
    stages = [plain_stage(name="first"), plain_stage(name="second", optimizer="sgd", knobs={"lr": plateau, "clip": 1.0})]
    return digits(
        budget="40 steps",
        stages=stages,
        micro_batch=PIECE,
        evaluate={"exams": [EXAM], "every": 0.5},
        checkpoints={"every_steps": 5},
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody kills."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    outlay.run(recipe(), folder)
    return folder


# ---- instants -----------------------------------------------------------------------------------------------------------------------


def dies_before(place: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """From now on this process kills itself just before a call; to be used in a child alone."""
    real = getattr(place, name)

    def call(*arguments: Any, **named: Any) -> Any:
        if when(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    setattr(place, name, call)


def in_piece(step: int, piece: int) -> Callable[[], None]:
    return lambda: dies_before(update, "seeded", lambda seed, name, number: number == step * 4096 + piece)


def saved_times(count: int) -> Callable[..., bool]:
    calls = iter(range(1000))
    return lambda reserve, part, seconds: part == "checkpoint" and next(calls) == count


#: instant -> (how to die there, step from which the run is resumed, steps that are lost); None where nothing can be lost
INSTANTS: dict[str, tuple[Callable[[], None], int, int]] = {
    "with nothing but the recipe written": (lambda: dies_before(run, "Journal"), 0, 0),
    "while planning": (lambda: dies_before(run, "plan_stages"), 0, 0),
    "before the first checkpoint": (lambda: dies_before(run, "spend_stage"), 0, 0),
    "in the middle of step 13": (in_piece(13, 2), 10, 2),
    "inside the checkpoint of step 15": (lambda: dies_before(checkpoint, "_manifest", lambda step, _: step == 15), 10, 5),
    "between the checkpoint of step 15 and its line": (lambda: dies_before(Reserve, "measured", saved_times(3)), 15, 0),
    "between the stages": (lambda: dies_before(run, "_open", lambda way, spending, index, *_: index == 1), 15, 5),
    "in the middle of step 28, in the second stage": (in_piece(28, 3), 25, 2),
    "in the last evaluation": (lambda: dies_before(run, "examine", lambda *arguments: arguments[3] == "end"), 40, 0),
    "while the weights are written": (lambda: dies_before(finishing, "_export"), 40, 0),
    "while the report is written": (lambda: dies_before(finishing, "_report"), 40, 0),
    "before the last line": (lambda: dies_before(Meter, "close"), 40, 0),
}


def killed(folder: Path, die: Callable[[], None], fresh: bool = True) -> None:
    """Spend a run in a child that dies on its way."""

    def work() -> None:
        die()
        outlay.run(recipe(), folder) if fresh else outlay.resume(folder)

    assert wait(child(work)) == -signal.SIGKILL


def check(folder: Path, reference: Path) -> None:
    """Weights, metrics and stages are those of the reference, and what was done twice is booked as lost."""
    mine, theirs = result_of(folder), result_of(reference)
    assert weights(folder) == weights(reference)
    assert mine["budget"] == theirs["budget"] == {"steps": {"limit": 40.0, "spent": 40.0}}
    for key in ("metrics", "metrics_start", "steps", "ended_by", "exit_code"):
        assert mine[key] == theirs[key], key
    assert [(stage["name"], stage["steps"], stage["final_loss"]) for stage in mine["stages"]] == [
        (stage["name"], stage["steps"], stage["final_loss"]) for stage in theirs["stages"]
    ]
    for unit in ("steps", "examples", "flops"):
        assert mine["spent"][unit] == pytest.approx(theirs["spent"][unit]), unit
    taken = [line["step"] for line in lines(folder, "step")]
    assert mine["lost"].get("steps", 0) == len(taken) - len(set(taken))
    assert mine["accounts"].get(LOST, {}).get("seconds", 0.0) == pytest.approx(mine["lost"].get("seconds", 0.0))
    assert audit(folder) == []


# ---- once ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_killed_run_ends_as_if_it_had_not_been(instant: str, reference: Path, tmp_path: Path) -> None:
    die, step, lost = INSTANTS[instant]
    folder = tmp_path / "run"
    killed(folder, die)
    result = outlay.resume(folder)
    resumed = lines(folder, "resume")
    assert [line["from_step"] for line in resumed] == ([] if "nothing but" in instant else [step])
    assert result.lost.get("steps", 0.0) == lost
    if lost:
        assert result.lost["seconds"] > 0
    check(folder, reference)


def test_a_run_killed_before_its_directory_leaves_nothing(tmp_path: Path) -> None:
    killed(tmp_path / "run", lambda: dies_before(run, "_make_folder"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="is not a run directory"):
        outlay.resume(tmp_path / "run")


# ---- again and again ----------------------------------------------------------------------------------------------------------------


def test_a_run_killed_twice(reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    killed(folder, in_piece(13, 1))
    killed(folder, in_piece(28, 0), fresh=False)
    result = outlay.resume(folder)
    assert [line["from_step"] for line in lines(folder, "resume")] == [10, 25]
    assert result.lost["steps"] == 2 + 2
    check(folder, reference)


def test_a_run_killed_twice_at_the_same_checkpoint_loses_both_tries(reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    killed(folder, in_piece(15, 1))
    killed(folder, in_piece(14, 0), fresh=False)
    killed(folder, lambda: dies_before(run, "restore"), fresh=False)  # and once more before it has taken a step
    result = outlay.resume(folder)
    assert [line["from_step"] for line in lines(folder, "resume")] == [10, 10, 10]
    assert result.lost["steps"] == 4 + 3
    check(folder, reference)


def test_a_run_killed_before_its_first_checkpoint_begins_again(reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for fresh in (True, False):
        killed(folder, lambda: dies_before(checkpoint, "_manifest"), fresh=fresh)
    outlay.resume(folder)
    assert [line["from_step"] for line in lines(folder, "resume")] == [0, 0]
    check(folder, reference)


def test_a_line_torn_by_the_kill_is_passed_over(reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    killed(folder, in_piece(13, 1))
    journal = folder / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[: whole.rstrip(b"\n").rfind(b"\n") + 9])  # the last line's first bytes are all that is left
    result = outlay.resume(folder)
    assert result.lost["steps"] == 1  # of the second step there is no trace
    check_weights_and_books(folder, reference)


def check_weights_and_books(folder: Path, reference: Path) -> None:
    assert weights(folder) == weights(reference) and audit(folder) == []


def test_half_a_checkpoint_is_swept_away(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    killed(folder, INSTANTS["inside the checkpoint of step 15"][0])
    assert [path.name for path in (folder / "checkpoints").glob(".incomplete-*")] == [".incomplete-step-00000015"]
    outlay.resume(folder)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000035", "step-00000040"]
