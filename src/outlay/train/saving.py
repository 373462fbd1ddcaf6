"""Saver: when a run is saved, and how it goes back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from outlay.errors import CheckpointError, InputError
from outlay.meter import Meter
from outlay.train.assembly import StageRun
from outlay.train.checkpoint import Snapshot, latest, prune, save_checkpoint, write_aside
from outlay.train.pace import Pace, Reserve
from outlay.train.recipe import Checkpoints
from outlay.train.snapshots import cursor_of, load_cursor, restore, restore_weights, snapshot
from outlay.train.underway import trunk_of

if TYPE_CHECKING:
    from outlay.train.loop import Spending

FOLDER = "checkpoints"


class Saver:
    """Writes checkpoints, decides when the next is due, and keeps the newest ones.

    Args:
        folder: the run directory.
        rule: when to save and how many to keep.
        meter: the books; its clock tells when the last save was.
        reserve: learns what a save costs.
    """

    def __init__(self, folder: Path, rule: Checkpoints, meter: Meter, reserve: Reserve) -> None:
        self.folder = folder / FOLDER
        self.reserve = reserve
        #: checkpoints since this process began; the same number on all processes
        self.saves = 0
        self._rule, self._meter = rule, meter
        self._last: tuple[int, int, int | None] | None = None
        #: digest of the file with the model that the stage compares with
        self._frozen: str | None = None
        self._last_time = meter.spent("seconds")

    def was_saved(self, stage: int, step: int, branch: int | None = None) -> None:
        """Tell that a checkpoint of this very place exists, as after resuming from it."""
        self._last = (stage, step, branch)

    def due(self, step: int) -> bool:
        """Return whether the run should be saved before its next step."""
        if self._last is not None and self._last[1] == step:
            return False
        if self._rule.every_steps is not None:
            return step % self._rule.every_steps == 0
        since = self._meter.spent("seconds") - self._last_time
        cost = self.reserve.seconds.get("checkpoint", 0.0)
        return since >= max(self._rule.every_seconds, cost / self._rule.most)

    def save(self, run: Spending, stage_run: StageRun, pace: Pace) -> None:
        """Save the run, unless it was saved at this very step. A disk that is full costs a warning, not the run."""
        here = (stage_run.index, run.step, stage_run.branch.number if stage_run.branch is not None else None)
        if here == self._last:
            return
        self._last, began = here, self._meter.spent("seconds")
        if run.assembly.accelerator.is_main_process:
            with self._meter.spend("checkpoint"):
                self._write(run, stage_run, pace, began)
        run.assembly.accelerator.wait_for_everyone()
        self.saves += 1
        self._last_time = self._meter.spent("seconds")

    def _write(self, run: Spending, stage_run: StageRun, pace: Pace, began: float) -> None:
        saved = snapshot(run.assembly, stage_run)
        run.journal.sync()
        saved.plain |= {
            "step": run.step,
            "aside": run.aside,
            "branches": run.branches,
            "lines": run.journal.lines,
            "pace": pace.state_dict(),
            "reserve": self.reserve.seconds,
            "metrics": run.metrics,
            "metrics_start": run.metrics_start,
            "stages": run.stages,
            "flops_per_position": run.flops_per_position,
            "frozen": self._frozen,
        }
        # the books as the lines so far tell them; what comes after belongs to the line below, or is lost if a kill comes first
        saved.plain["meter"] = self._meter.settled()
        try:
            path = save_checkpoint(self.folder, run.step, saved)
        except OSError as error:
            run.journal.warn(f"the checkpoint of step {run.step} could not be written ({error.strerror}); the one before it stands")
            run.display.say(run.journal.warnings[-1])
            return
        seconds = self._meter.spent("seconds") - began
        self.reserve.measured("checkpoint", seconds)
        size = sum(file.stat().st_size for file in path.iterdir())
        on = {"branch": stage_run.branch.number} if stage_run.branch is not None else {}
        run.journal.write("checkpoint", step=run.step, path=str(path.relative_to(self.folder.parent)), bytes=size, seconds=seconds, **on)
        prune(self.folder, self._rule.keep)

    def keep_frozen(self, run: Spending, stage: int) -> None:
        """Write what a stage compares with, once, when it begins. A disk that is full costs a warning; the run cannot be resumed then."""
        frozen = run.assembly.frozen[stage]
        self._frozen = None
        if not frozen.used or not run.assembly.accelerator.is_main_process:
            return
        from safetensors.torch import save

        data, path = save(frozen.tensors()), self._frozen_path(stage)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_aside(path, data)
            self._frozen = hashlib.sha256(data).hexdigest()
        except OSError as error:
            run.journal.warn(f"{path.name}, the model that the stage compares with, could not be written ({error.strerror}): no resuming")

    def load_frozen(self, run: Spending, stage: int, digest: str | None) -> None:
        """Read what a stage compares with; ``digest`` is what the checkpoint says of it.

        Raises:
            InputError: when it is gone or is not what was written.
        """
        self._frozen, frozen = digest, run.assembly.frozen[stage]
        if not frozen.used:
            return
        from safetensors.torch import load

        path = self._frozen_path(stage)
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != digest:
            found = "has been changed or torn" if data else "is not there"
            raise InputError(f"{path}, the model that stage {stage + 1} compares with, {found}; restore it, or begin the run anew")
        frozen.load(load(data))

    def _frozen_path(self, stage: int) -> Path:
        return self.folder / f"frozen-{stage}.safetensors"

    def newest(self) -> Snapshot | None:
        """Return the newest whole checkpoint's content, or None."""
        try:
            return latest(self.folder)[1]
        except CheckpointError:
            return None

    def roll_back(self, run: Spending, stage_run: StageRun, saved: Snapshot) -> None:
        """Put back weights, optimizer and controllers of a checkpoint of this stage; the cursor, and what was spent, stay where they are.

        So do controllers that branch, since they keep account of what they have spent; and no branch is taken up again.
        """
        step, saved = saved.plain["step"], trunk_of(saved)
        kept = [(part, part.state_dict()) for part in stage_run.branchers.values()]
        cursor, losses = cursor_of(stage_run.stream), stage_run.losses
        times, due, bad = stage_run.rolled_back, stage_run.next_evaluation, stage_run.bad_in_a_row
        if saved.plain["stage"] == stage_run.index:
            restore(run.assembly, stage_run, saved)
        else:  # saving at the stage's start failed: its optimizer begins anew on the older weights
            restore_weights(run.assembly, saved)
        load_cursor(stage_run.stream, cursor)
        for part, state in kept:
            part.load_state_dict(state)
        stage_run.losses, stage_run.rolled_back, stage_run.next_evaluation = losses, times + 1, due
        stage_run.bad_in_a_row = bad
        why = f"{run.assembly.recipe.health.patience} steps in a row or the recipe's health asked for it"
        run.journal.write("decision", what=f"rolled back to the weights of step {step}", why=why)
        run.display.say(f"rolled back to the weights of step {step}")
