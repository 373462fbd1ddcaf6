"""Branching: how a run goes aside and comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from outlay.branch import Branch, End, Landing
from outlay.controllers.base import Brancher
from outlay.optim.base import settled
from outlay.record import Record
from outlay.train.assembly import StageRun
from outlay.train.examining import sit
from outlay.train.exporting import export
from outlay.train.journal import journaled
from outlay.train.pace import PUT_BACK, Pace
from outlay.train.snapshots import cursor_of, load_cursor, restore, snapshot
from outlay.train.underway import Underway

if TYPE_CHECKING:
    from outlay.train.loop import Spending

FOLDER = "branches"


def turn(run: Spending, stage_run: StageRun, pace: Pace, progress: float, cost: Mapping[str, float]) -> bool:
    """Begin a branch that a controller asks for, or land the one that has its full length; return whether either was done.

    Args:
        progress: of the stage.
        cost: what the next step uses of every counted unit.
    """
    if stage_run.branch is not None:
        over = stage_run.branch.over(progress)
        if over:
            land(run, stage_run, pace)
        return over
    for name, brancher in stage_run.branchers.items():
        branch = brancher.next_branch(progress)
        if branch is not None and _begin(run, stage_run, pace, name, brancher, branch, progress, cost):
            return True
    return False


def _begin(
    run: Spending,
    stage_run: StageRun,
    pace: Pace,
    name: str,
    brancher: Brancher,
    branch: Branch,
    progress: float,
    cost: Mapping[str, float],
) -> bool:
    told = {"step": run.step, "stage": stage_run.stage.name, "progress": progress}
    if not pace.bears(branch, cost):
        run.journal.write("branch", what="refused", name=branch.name, **told)
        pace.turned()
        brancher.landed(branch, Landing("refused", progress, progress))
        return False
    run.branches += 1
    before = run.meter.spent("seconds")
    with run.meter.spend(branch.account):
        stage_run.branch = Underway(branch, run.branches, name, progress, snapshot(run.assembly, stage_run))
    # going back takes about as long as remembering did, and must be possible whenever the budget ends
    run.saver.reserve.seconds[PUT_BACK] = run.meter.spent("seconds") - before
    run.journal.write("branch", what="begun", **stage_run.branch.marks(), **told, steps=branch.steps, share=branch.share)
    pace.turned()
    return True


def took_step(run: Spending, underway: Underway, record: Record) -> None:
    """Put a branch's step on record."""
    underway.took(record)
    run.journal.write("branch_step", **underway.marks(), **journaled(record))


def land(run: Spending, stage_run: StageRun, pace: Pace, diverged: bool = False) -> None:
    """End the branch: evaluate and save it if it has its full length and that was asked for, put the run back, and tell the controller."""
    underway = stage_run.branch
    assert underway is not None
    branch, ended = underway.branch, pace.progress
    end: End = "diverged" if diverged else "whole" if underway.over(ended) else "cut"
    with settled(stage_run.stage.optimizer, stage_run.optimizer):
        metrics = _examine(run, pace, branch) if end == "whole" and branch.evaluate else {}
        path = _save(run, branch) if end == "whole" and branch.save else None
    run.journal.write(
        "branch", what="landed", **underway.marks(), step=run.step, stage=stage_run.stage.name, progress=ended, end=end,
        steps=underway.done, metrics=metrics, path=path,
    )  # fmt: skip
    pace.turned()
    brancher = stage_run.branchers[underway.knob]
    stage_run.branch = None
    if not (branch.keep and end == "whole"):
        with run.meter.spend(branch.account):
            _put_back(run, stage_run, underway, brancher)
    run.saver.reserve.seconds.pop(PUT_BACK, None)
    with run.meter.spend(branch.account):  # making up its mind may take a while
        brancher.landed(branch, Landing(end, underway.began, ended, tuple(underway.records), metrics))


def _put_back(run: Spending, stage_run: StageRun, underway: Underway, brancher: Brancher) -> None:
    own, cursor = brancher.state_dict(), cursor_of(stage_run.stream)
    restore(run.assembly, stage_run, underway.fork)
    brancher.load_state_dict(own)
    if not underway.branch.rewind_data:
        load_cursor(stage_run.stream, cursor)
    run.aside += underway.done


def _examine(run: Spending, pace: Pace, branch: Branch) -> dict[str, float]:
    if not run.assembly.sittings:
        return {}
    if not pace.evaluates():
        why = "with the last one, which is reserved, it would take more than is left of the budget"
        run.journal.write("decision", what=f"evaluation of branch {branch.name} left out", why=why)
        return {}
    return sit(run)


def _save(run: Spending, branch: Branch) -> str | None:
    """Write the branch's end as model weights; return where, or None when the disk did not take them."""
    folder = run.saver.folder.parent / FOLDER / branch.name
    written = True
    if run.assembly.accelerator.is_main_process:
        with run.meter.spend("checkpoint"):
            try:
                export(run.assembly, folder, last=False)
            except OSError as error:
                written = False
                run.journal.warn(f"the weights of branch {branch.name} could not be written ({error.strerror})")
    run.assembly.accelerator.wait_for_everyone()
    return f"{FOLDER}/{branch.name}" if written else None
