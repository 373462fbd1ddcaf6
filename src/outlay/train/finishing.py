"""Finishing: final weights, result and report; and a rehearsal of them, so that what they take is known when it is reserved."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from outlay.models.base import save_plain
from outlay.reporting import report as write_report
from outlay.train.exporting import aside, export
from outlay.train.loop import Spending
from outlay.train.result import SPENT, Result, finish_result

MODEL = "model"


def finish(run: Spending, folder: Path, ended_by: str, code: int, message: str) -> Result:
    """Write what a run leaves behind, stop its meter, and return its result. Weights are written only when the budget was spent.

    Args:
        folder: the run directory.
        ended_by: the unit whose limit ended the run, ``signal`` or ``failure``.
        code: the exit code.
        message: what to tell the user; empty when there is nothing to tell.
    """
    main = run.assembly.accelerator.is_main_process
    if main and code == SPENT:
        with run.meter.spend("checkpoint"):
            _export(run, folder)
    plan_file = folder / "plan.json"
    plan = json.loads(plan_file.read_text()) if plan_file.is_file() else None
    with run.meter.spend("report"):
        run.journal.write("end", ended_by=ended_by, message=message)
        if main:
            finish_result(run, folder, ended_by, code, plan).write()
            _report(run, folder)
    run.meter.close()
    run.journal.write("closed")
    result = finish_result(run, folder, ended_by, code, plan)
    if main:
        result.write()
    return result


def rehearse(run: Spending, folder: Path) -> None:
    """Write weights and report once, away from their places, and note what that takes: a run limited by seconds must know it in advance."""
    if not run.assembly.accelerator.is_main_process:
        return
    meter, reserve = run.meter, run.saver.reserve
    with meter.spend("checkpoint"):
        before = meter.spent("seconds")
        trial = aside(folder / MODEL)
        # with an adapter on, only the weights' bytes can be tried: merging would change them
        save = save_plain if run.assembly.recipe.adapter else run.assembly.loaded.save
        try:
            save(run.assembly.plain_module, trial)
        except OSError as error:
            run.journal.warn(f"the weights could not be written on trial ({error.strerror}); make room before the run ends")
        shutil.rmtree(trial, ignore_errors=True)
        reserve.measured("export", meter.spent("seconds") - before)
    rehearse_report(run, folder)


def rehearse_report(run: Spending, folder: Path) -> None:
    """Write the report as it stands, and note what that takes; it grows with the journal."""
    if not run.assembly.accelerator.is_main_process:
        return
    before = run.meter.spent("seconds")
    with run.meter.spend("report"):
        json.dumps(asdict(finish_result(run, folder, "", SPENT, None)))
        _report(run, folder)
    run.saver.reserve.measured("report", run.meter.spent("seconds") - before)


def _export(run: Spending, folder: Path) -> None:
    try:
        export(run.assembly, folder / MODEL, last=True)
    except OSError as error:
        run.journal.warn(f"the final weights could not be written to {MODEL}/ ({error.strerror}); they are in the last checkpoint")


def _report(run: Spending, folder: Path) -> None:
    try:
        write_report([folder])
    except Exception as error:  # whatever is wrong with a picture of the run, the run itself goes well
        run.journal.warn(f"the report could not be written: {error}; try again with: outlay report {folder}")
