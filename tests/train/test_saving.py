"""The saver: when a run is saved, what a save costs, and how a run goes back."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import digits, language, lines

from outlay.meter import Meter
from outlay.reporting import Quiet
from outlay.testing import FakeClock
from outlay.train import Checkpoints, Recipe, saving
from outlay.train.assembly import StageRun, assemble, open_stage
from outlay.train.checkpoint import Snapshot, checkpoints, load_checkpoint
from outlay.train.journal import Journal, kept_since, lost_since, read_journal
from outlay.train.loop import Spending
from outlay.train.pace import LivePace, Reserve
from outlay.train.saving import Saver
from outlay.train.signals import Signals
from outlay.train.update import set_knobs, update

Opened = tuple[Spending, StageRun, LivePace, FakeClock]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """A run that has begun and taken no step, on a clock that a test moves."""
    journals: list[Journal] = []

    def begin(recipe: Recipe | None = None, rule: Checkpoints | None = None) -> Opened:
        recipe, clock = recipe or digits(), FakeClock()
        meter, assembly = Meter(recipe.budget, clock), assemble(recipe)
        journals.append(Journal(tmp_path, meter))
        saver = Saver(tmp_path, rule or recipe.checkpoints, meter, Reserve())
        run = Spending(assembly, meter, journals[-1], Quiet(), Signals(), saver)
        return run, open_stage(assembly, 0, {"steps": 0.0}, 16), LivePace(meter, {}, 1.0, saver.reserve), clock

    yield begin
    for journal in journals:
        journal.close()


def walk(run: Spending, stage_run: StageRun, steps: int = 1) -> None:
    for _ in range(steps):
        run.step += 1
        update(run.assembly, stage_run, stage_run.stream.draw(16), set_knobs(run.assembly, stage_run, 0.5), run.step)
        stage_run.stream.advance(16)
        run.meter.charge("train", steps=1.0)
        run.journal.write("step", step=run.step)


def weights(run: Spending) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.assembly.plain_module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def slow_disk(clock: FakeClock, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    real = saving.save_checkpoint

    def slowly(folder: Path, step: int, snapshot: Snapshot) -> Path:
        clock.advance(seconds)
        return real(folder, step, snapshot)

    monkeypatch.setattr(saving, "save_checkpoint", slowly)


# ---- when ---------------------------------------------------------------------------------------------------------------------------


def test_every_so_many_steps_and_once_at_each(opened: Any) -> None:
    run, stage_run, pace, _ = opened(rule=Checkpoints(every_steps=3))
    due = []
    for _ in range(8):
        if run.saver.due(run.step):
            due.append(run.step)
            run.saver.save(run, stage_run, pace)
            assert not run.saver.due(run.step)  # or a loop that asks again would never go on
        walk(run, stage_run)
    assert due == [0, 3, 6]
    assert [path.name for path in checkpoints(run.saver.folder)] == ["step-00000003", "step-00000006"]  # two are kept


def test_by_the_clock_and_never_for_more_than_its_share(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, stage_run, pace, clock = opened(rule=Checkpoints(every_seconds=30.0, most=0.02))
    slow_disk(clock, monkeypatch, 0.5)
    run.saver.save(run, stage_run, pace)
    run.step = 1
    clock.advance(29.0)
    assert not run.saver.due(1)
    clock.advance(1.0)
    assert run.saver.due(1)
    slow_disk(clock, monkeypatch, 1.5)  # two seconds in all: worth it every 100 s
    run.saver.save(run, stage_run, pace)
    run.step = 2
    clock.advance(99.0)
    assert not run.saver.due(2)
    clock.advance(1.0)
    assert run.saver.due(2)
    assert [line["seconds"] for line in lines(run.saver.folder.parent, "checkpoint")] == [0.5, 2.0]


def test_a_resumed_run_is_not_saved_again_where_it_was(opened: Any) -> None:
    run, stage_run, pace, _ = opened(rule=Checkpoints(every_steps=1))
    run.step = 7
    run.saver.was_saved(0, 7)
    assert not run.saver.due(7)
    run.saver.save(run, stage_run, pace)
    assert not run.saver.folder.exists()
    run.saver.was_saved(1, 7)  # another stage at the same step is another place
    run.saver.save(run, stage_run, pace)
    assert [path.name for path in checkpoints(run.saver.folder)] == ["step-00000007"]


# ---- what -------------------------------------------------------------------------------------------------------------------------------


def test_what_a_save_costs_is_measured_journaled_and_reserved(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, stage_run, pace, clock = opened()
    slow_disk(clock, monkeypatch, 4.0)
    walk(run, stage_run)
    run.saver.save(run, stage_run, pace)
    (line,) = lines(run.saver.folder.parent, "checkpoint")
    path = run.saver.folder.parent / line["path"]
    assert line["step"] == 1 and line["seconds"] == 4.0 and line["bytes"] == sum(file.stat().st_size for file in path.iterdir())
    assert line["charged"] == {"checkpoint": {"seconds": 4.0}}
    assert run.saver.reserve.seconds == {"checkpoint": 4.0}


def test_the_books_in_a_checkpoint_are_those_of_the_lines_before_it(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a kill comes before or after the checkpoint's own line, saved books + what is kept + what is lost are all that was spent."""
    run, stage_run, pace, clock = opened()
    slow_disk(clock, monkeypatch, 4.0)
    walk(run, stage_run, 2)
    clock.advance(0.75)  # not yet in any line
    run.saver.save(run, stage_run, pace)
    walk(run, stage_run, 3)
    saved = load_checkpoint(checkpoints(run.saver.folder)[-1]).plain
    journal = read_journal(run.saver.folder.parent)
    assert saved["lines"] == 2 and saved["step"] == 2 and saved["meter"]["accounts"]["train"] == {"steps": 2.0}
    kept, lost = kept_since(journal, saved["lines"], 2), lost_since(journal, saved["lines"], 2)
    assert kept == {"idle": {"seconds": 0.75}, "checkpoint": {"seconds": 4.0}} and lost["steps"] == 3.0
    whole = sum(book.get("seconds", 0.0) for books in (saved["meter"]["accounts"], kept) for book in books.values())
    assert whole + lost.get("seconds", 0.0) == run.meter.spent("seconds") == 4.75
    before_its_line = [line for line in journal if line["n"] < 2]
    assert kept_since(before_its_line, 2, 2) == {} and lost_since(before_its_line, 2, 2) == {}


def test_a_full_disk_costs_a_warning_and_is_tried_again_later(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, stage_run, pace, _ = opened(rule=Checkpoints(every_steps=1))
    run.saver.save(run, stage_run, pace)
    walk(run, stage_run)

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(saving, "save_checkpoint", full)
        run.saver.save(run, stage_run, pace)
        assert not run.saver.due(1)
    message = "the checkpoint of step 1 could not be written (No space left on device); the one before it stands"
    assert run.journal.warnings == [message]
    newest = run.saver.newest()
    assert newest is not None and newest.plain["step"] == 0
    walk(run, stage_run)
    assert run.saver.due(2)
    run.saver.save(run, stage_run, pace)
    assert run.saver.newest().plain["step"] == 2


# ---- going back -------------------------------------------------------------------------------------------------------------------------


def test_going_back_keeps_the_data_and_the_counts(opened: Any) -> None:
    run, stage_run, pace, _ = opened()
    walk(run, stage_run, 2)
    run.saver.save(run, stage_run, pace)
    before, moments = weights(run), stage_run.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    walk(run, stage_run, 3)
    stage_run.losses, stage_run.next_evaluation, stage_run.rolled_back, stage_run.bad_in_a_row = [0.5], 0.75, 1, 3
    run.saver.roll_back(run, stage_run, run.saver.newest())
    assert same(before, weights(run)) and torch.equal(moments, stage_run.optimizer.state_dict()["state"][0]["exp_avg"])
    assert stage_run.stream.state_dict()["cursor"] == 5 * 16 and run.step == 5
    assert (stage_run.losses, stage_run.next_evaluation, stage_run.rolled_back, stage_run.bad_in_a_row) == ([0.5], 0.75, 2, 3)
    assert lines(run.saver.folder.parent, "decision")[-1]["what"] == "rolled back to the weights of step 2"


def test_going_back_to_an_earlier_stage_takes_its_weights_alone(opened: Any) -> None:
    run, stage_run, pace, _ = opened()
    walk(run, stage_run, 2)
    run.saver.save(run, stage_run, pace)
    before = weights(run)
    stage_run.index = 1  # as if the next stage had begun and could not be saved
    walk(run, stage_run, 2)
    moments = stage_run.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    run.saver.roll_back(run, stage_run, run.saver.newest())
    assert same(before, weights(run)) and torch.equal(moments, stage_run.optimizer.state_dict()["state"][0]["exp_avg"])
    assert stage_run.stream.state_dict()["cursor"] == 4 * 16 and stage_run.rolled_back == 1


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(opened: Any) -> None:
    run, *_ = opened()
    assert run.saver.newest() is None


def test_a_checkpoint_of_a_language_model_holds_shared_weights_once(opened: Any) -> None:
    run, stage_run, pace, _ = opened(language())
    run.saver.save(run, stage_run, pace)
    saved = run.saver.newest().tensors["model"]
    assert "model.embed_tokens.weight" in saved and "lm_head.weight" not in saved
