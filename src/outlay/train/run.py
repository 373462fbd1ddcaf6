"""Run: spend a recipe in a directory, resume it after a kill, repeat it from its journal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from outlay.budget import BOUGHT, format_amount
from outlay.catalog import describe
from outlay.errors import InputError
from outlay.meter import SETUP, Meter
from outlay.optim.base import settle
from outlay.reporting.terminal import Display, Quiet
from outlay.train.adapting import check_priming, prime
from outlay.train.assembly import (
    Assembly,
    StageRun,
    assemble,
    count_parameters,
    evaluation_bound,
    forward_flops_per_position,
    open_stage,
    training_flops,
    versions,
)
from outlay.train.checkpoint import Snapshot, latest
from outlay.train.finishing import finish, rehearse, rehearse_report
from outlay.train.journal import NAME as JOURNAL
from outlay.train.journal import Journal, effective, how_ended, kept_since, lost_since, read_journal
from outlay.train.labels import buy_labels, check_labels
from outlay.train.loop import RunFailed, Spending, examine, spend_stage
from outlay.train.pace import LivePace, Pace, Reserve, affords_evaluation, ending_unit, flow_limits
from outlay.train.planner import plan_stages
from outlay.train.preparing import Prepared, measure_steps, prepare, warm_up_compiler
from outlay.train.reading import dump_recipe, load_recipe
from outlay.train.recipe import Recipe
from outlay.train.replaying import RecordedPace
from outlay.train.result import FAILED, SPENT, STOPPED, Result
from outlay.train.saving import FOLDER, Saver
from outlay.train.signals import Signals
from outlay.train.snapshots import restore

#: lines that a replay takes the progress from
PACED = ("step", "branch_step", "branch")


@dataclass
class _Way:
    """How this process comes to the run: fresh, resumed or replayed."""

    folder: Path
    recipe: Recipe
    meter: Meter
    display: Display
    saved: Snapshot | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    replay: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What the first process chose and later ones must keep: the journal's first line."""
        return next((line for line in self.lines if line["kind"] == "run"), {})


def run(recipe: Recipe | str | Path, out: Path | str | None = None, *, display: Display | None = None, began: float | None = None,
        clock: Callable[[], float] = time.monotonic) -> Result:  # fmt: skip
    """Spend a recipe's budget and return where it went.

    Args:
        recipe: a recipe, or what ``load_recipe`` reads.
        out: directory of the run, which must not hold a run already; None for ``runs/<name>-<number>``.
        display: what a person sees meanwhile; None for nothing.
        began: reading of ``clock`` from which seconds count, when the process began earlier.
        clock: returns seconds.

    Returns:
        The result. SIGTERM and Ctrl-C do not raise: the run ends in good order with ``ended_by == "signal"`` and ``exit_code == 3``.

    Raises:
        InputError: when recipe, data or directory are wrong; nothing has been created then.
        RunFailed: when the run's numbers broke; result and checkpoint have been written.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    folder = _fresh_folder(recipe, out)
    way = _Way(folder, recipe, Meter(recipe.budget, clock, began), display or Quiet())
    return _spend(way)


def resume(folder: Path | str, *, recipe: Recipe | None = None, display: Display | None = None, began: float | None = None,
           clock: Callable[[], float] = time.monotonic) -> Result:  # fmt: skip
    """Go on with a run that was stopped or killed, from its newest whole checkpoint. What was lost since then is put on the books.

    Args:
        folder: the run directory.
        recipe: needed only when the run was started in Python with objects that YAML cannot hold.

    Raises:
        InputError: when the folder is not a run, the run has ended on its budget, or another process is spending it.
    """
    folder = Path(folder)
    unborn = (folder / "recipe.yaml").is_file() and not (folder / JOURNAL).exists()  # killed before it had begun
    lines = [] if unborn else read_journal(folder)
    ended_by = how_ended(lines)
    if ended_by not in (None, "signal", "failure"):
        raise InputError(f"the run in {folder} has ended on its budget ({ended_by}); start a new one with a larger budget")
    if any(line["kind"] == "run" and line.get("replay") for line in lines):
        raise InputError(f"{folder} holds a replay, which follows another run's journal and cannot be gone on with; replay that run again")
    recipe = recipe or _recipe_of(folder)
    way = _Way(folder, recipe, Meter(recipe.budget, clock, began), display or Quiet(), lines=lines)
    if (folder / FOLDER).is_dir() and any(line["kind"] == "checkpoint" for line in lines):
        _, way.saved, way.refused = latest(folder / FOLDER)
    return _spend(way)


def replay(folder: Path | str, out: Path | str | None = None, *, recipe: Recipe | None = None, display: Display | None = None) -> Result:
    """Repeat a run from the progress its journal recorded, so that a run limited by seconds ends with the same weights.

    Args:
        folder: the run to repeat; it must have ended.
        out: directory of the repetition; None for ``<folder>-replay``.
        recipe: as in ``resume``.

    Raises:
        InputError: when the folder is not a run or it has not ended.
    """
    folder = Path(folder)
    lines = effective(read_journal(folder))
    if how_ended(lines) in (None, "signal"):
        raise InputError(f"the run in {folder} has not ended; resume it first (outlay resume {folder})")
    recipe = recipe or _recipe_of(folder)
    target = _fresh_folder(recipe, out or folder.parent / f"{folder.name}-replay")
    return _spend(_Way(target, recipe, Meter(recipe.budget), display or Quiet(), lines=lines, replay=True))


def _recipe_of(folder: Path) -> Recipe:
    try:
        return load_recipe(folder / "recipe.yaml")
    except InputError as error:
        raise InputError(f"the run's recipe cannot be read back ({error}); if it was made in Python, pass recipe=") from error


def _fresh_folder(recipe: Recipe, out: Path | str | None) -> Path:
    if out is not None:
        folder = Path(out)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{folder} exists and is not empty; choose another directory, or resume the run in it (outlay resume {folder})"
            )
        return folder
    numbers = (number for number in range(1, 1_000_000) if not Path("runs", f"{recipe.name}-{number}").exists())
    return Path("runs", f"{recipe.name}-{next(numbers)}")


def _spend(way: _Way) -> Result:
    with Signals() as signals:
        with way.meter.spend(SETUP):
            assembly = assemble(way.recipe, threads=way.settings.get("threads"))
            check_labels(assembly)
            for costs, state in zip(assembly.costs, way.saved.plain["costs"] if way.saved else [], strict=False):
                costs.load_state_dict(state)
            prepared = prepare(assembly, way.meter, way.settings)
            if not way.lines:
                check_priming(assembly, way.meter, prepared[0])
            if not way.lines and assembly.agree([float(way.meter.exhausted is not None)])[0]:
                unit = way.meter.exhausted or next(iter(way.recipe.budget.limits))
                used = (
                    f"{format_amount(unit, way.recipe.budget.limits[unit])} are used up by setting up ({way.meter.spent(unit):.4g} {unit})"
                )
                raise InputError(f"the budget's {used}, so nothing is left to train with; raise it")
            # only here is everything known to be right
            if assembly.accelerator.is_main_process:
                _make_folder(way)
            assembly.accelerator.wait_for_everyone()
            journal = Journal(way.folder, way.meter, assembly.accelerator.is_main_process)
        with ExitStack() as cleanup:
            cleanup.callback(journal.close)
            cleanup.callback(way.display.close)
            return _spend_journaled(way, assembly, prepared, journal, signals)


def _make_folder(way: _Way) -> None:
    """Create the run directory, the recipe first: a directory with a recipe alone is a run that has not begun."""
    way.folder.mkdir(parents=True, exist_ok=True)
    path = way.folder / "recipe.yaml"
    if not path.exists():
        aside = path.with_suffix(".incomplete")
        aside.write_text(dump_recipe(way.recipe), encoding="utf-8")
        os.replace(aside, path)


def _spend_journaled(way: _Way, assembly: Assembly, prepared: list[Prepared], journal: Journal, signals: Signals) -> Result:
    reserve = Reserve()
    run = Spending(assembly, way.meter, journal, way.display, signals, Saver(way.folder, way.recipe.checkpoints, way.meter, reserve))
    with way.meter.spend(SETUP):
        if way.lines and not way.replay:
            _take_up(way, run, reserve)
        else:
            _write_head(way, assembly, prepared, journal)
    run.flops_per_position = run.flops_per_position or forward_flops_per_position(prepared[0].cost, prepared[0].batch)
    reserve.counted = evaluation_bound(assembly, run.flops_per_position)
    way.display.start(way.recipe.budget, way.recipe.budget.limits)
    try:
        if way.recipe.compile:
            warm_up_compiler(assembly, way.meter, prepared)
        if "seconds" in flow_limits(way.recipe.budget) and not way.replay:
            run.rehearsal = partial(rehearse_report, run, way.folder)
        if way.saved is None:
            _begin(way, run, prepared)
        ended_by, code, message = _spend_stages(way, run, prepared, reserve)
    except RunFailed as error:
        ended_by, code, message = "failure", FAILED, str(error)
    except BaseException as error:
        finish(run, way.folder, "failure", FAILED, f"{type(error).__name__}: {error}")
        raise
    result = finish(run, way.folder, ended_by, code, message)
    if code == FAILED:
        raise RunFailed(f"{message} (run directory: {way.folder})")
    return result


def _write_head(way: _Way, assembly: Assembly, prepared: list[Prepared], journal: Journal) -> None:
    recipe, (parameters, trainable) = way.recipe, count_parameters(assembly.plain_module)
    price = {"usd": recipe.budget.price.usd, "per": recipe.budget.price.per} if recipe.budget.price else None
    journal.write(
        "run", format=1, name=recipe.name, recipe=describe(recipe), budget=str(recipe.budget), limits=dict(recipe.budget.limits),
        ceilings=dict(recipe.budget.ceilings), price=price, seed=recipe.seed, versions=versions(), device=str(assembly.context.device),
        threads=torch.get_num_threads(), processes=assembly.context.world, precision=assembly.precision, parameters=parameters,
        trainable=trainable, replay=way.replay, micro_batches=[stage.micro_batch for stage in prepared],
    )  # fmt: skip
    for stage, known in zip(recipe.stages, prepared, strict=True):
        journal.write("decision", what=f"stage {stage.name}: micro-batch {known.micro_batch}", why=known.why)


def _begin(way: _Way, run: Spending, prepared: list[Prepared]) -> None:
    """Do what comes once, before the first step: probe, plan, and evaluate the untrained model."""
    recipe, assembly, meter = way.recipe, run.assembly, way.meter
    prime(assembly, meter, prepared[0])
    probes = measure_steps(assembly, meter, prepared, recipe.probe_steps) if recipe.probe_steps and not way.replay else None
    if recipe.evaluate.start and assembly.sittings:
        if assembly.agree([float(affords_evaluation(meter, run.saver.reserve))])[0]:
            run.metrics_start = examine(run, recipe.stages[0].name, 0.0, "start")
        else:
            run.journal.warn("the evaluation before training was left out: the budget cannot bear it and the last one")
    with meter.spend("plan"):
        made = plan_stages(assembly, prepared, meter, run.saver.reserve, probes, begun=True)
        if assembly.accelerator.is_main_process:
            (way.folder / "plan.json").write_text(json.dumps(made.to_json(), indent=1), encoding="utf-8")
    run.journal.write("plan", plan=made.to_json())
    if "seconds" in flow_limits(recipe.budget) and not way.replay:
        rehearse(run, way.folder)
    for line in made.notes:
        way.display.say(line)


def _take_up(way: _Way, run: Spending, reserve: Reserve) -> None:
    """Book what the killed process had spent: as saved up to the checkpoint, as lost after it."""
    # without a checkpoint all but the journal's first line is lost
    saved: dict[str, Any] = way.saved.plain if way.saved else {"meter": {"accounts": {}, "lost": {}}, "lines": 1, "step": 0}
    at, step = saved["lines"], saved["step"]
    since, of = (at, step) if way.saved else (0, -1)
    way.meter.load_state_dict(saved["meter"])
    way.meter.load_state_dict({"accounts": kept_since(way.lines, since, of), "lost": {}})
    lost = lost_since(way.lines, since, of)
    way.meter.write_off(lost)
    run.step, run.aside, run.branches = step, saved.get("aside", 0), saved.get("branches", 0)
    if way.saved:
        run.saver.was_saved(saved["stage"], step, (saved.get("branch") or {}).get("number"))
        run.metrics, run.metrics_start, run.stages = saved["metrics"], saved["metrics_start"], saved["stages"]
        run.flops_per_position = saved["flops_per_position"]
        reserve.seconds |= saved["reserve"]
    run.journal.write("resume", from_step=step, from_line=at, lost=lost)
    for why in way.refused:
        run.journal.warn(f"a checkpoint was refused: {why}")
    way.display.say(f"resumed from step {step}; lost: " + (", ".join(f"{amount:.4g} {unit}" for unit, amount in lost.items()) or "nothing"))


def _spend_stages(way: _Way, run: Spending, prepared: list[Prepared], reserve: Reserve) -> tuple[str, int, str]:
    recipe, saved = way.recipe, way.saved
    first = saved.plain["stage"] if saved else 0
    for index in range(first, len(recipe.stages)):
        stage_run = _open(way, run, index, prepared[index], saved if index == first else None)
        pace = _pace(way, run, reserve, stage_run, saved if index == first else None)
        if saved is None or index > first:
            run.saver.save(run, stage_run, pace)
        end = spend_stage(run, stage_run, pace)
        if end == "stopped":
            run.saver.save(run, stage_run, pace)
            return "signal", STOPPED, f"stopped by {run.signals.name}; go on with: outlay resume {way.folder}"
        if index == len(recipe.stages) - 1:
            run.saver.save(run, stage_run, pace)  # before the stage is closed: who resumes from here closes it
        _close_stage(run, stage_run)
    if recipe.evaluate.exams:
        examine(run, recipe.stages[-1].name, 1.0, "end")
    return ending_unit(recipe.budget, pace.ended_by or "steps"), SPENT, ""


def _open(way: _Way, run: Spending, index: int, prepared: Prepared, saved: Snapshot | None) -> StageRun:
    """Build a stage's optimizer and knobs, or put back a saved stage."""
    with way.meter.spend(SETUP):
        stage_run = open_stage(run.assembly, index, {}, prepared.micro_batch)
        stage_run.flops_per_example = training_flops(stage_run.stage, prepared.cost)
        if saved is not None:
            restore(run.assembly, stage_run, saved)
            run.saver.load_frozen(run, index, saved.plain.get("frozen"))
            return stage_run
        run.assembly.frozen[index].refresh()
        run.saver.keep_frozen(run, index)
        buy_labels(run.assembly, run.meter, index)
    stage_run.starts = {unit: way.meter.spent(unit) for unit in flow_limits(way.recipe.budget)}
    stage_run.first_step = run.step
    return stage_run


def _pace(way: _Way, run: Spending, reserve: Reserve, stage_run: StageRun, saved: Snapshot | None) -> Pace:
    if way.replay:
        mine = [line for line in way.lines if line["kind"] in PACED and line["stage"] == stage_run.stage.name]
        saves = [(line["step"], line.get("branch")) for line in way.lines if line["kind"] == "checkpoint"]
        here = [line for line in way.lines if line.get("stage") == stage_run.stage.name]
        examined = {line["step"]: line["progress"] for line in here if line.get("when") == "during"}
        on_branches = [line["step"] for line in here if line["kind"] == "branch" and line.get("metrics")]
        end = next(line for line in reversed(way.lines) if line["kind"] == "end")
        cuts = {line["place"]: line["cut"] for line in here if line["kind"] == "rollout" and "cut" in line}
        return RecordedPace(mine, saves, examined, on_branches, end["ended_by"], cuts)
    to_come = [stage.share for stage in way.recipe.stages[stage_run.index :]]
    asks = getattr(stage_run.objective, "needs_demonstrations", False)
    bought = () if asks else BOUGHT
    pace = LivePace(way.meter, stage_run.starts, to_come[0] / sum(to_come), reserve, run.assembly.agree, bought)
    if saved is not None:
        pace.load_state_dict(saved.plain["pace"])
    ends = pace.ends()
    run.journal.write(
        "stage", stage=stage_run.stage.name, index=stage_run.index, share=stage_run.stage.share,
        limits={unit: [stage_run.starts[unit], end] for unit, end in ends.items()},
    )  # fmt: skip
    way.display.say(f"stage {stage_run.stage.name}")
    return pace


def _close_stage(run: Spending, stage_run: StageRun) -> None:
    settle(stage_run.stage.optimizer, stage_run.optimizer)
    spent = {unit: run.meter.spent(unit) - stage_run.starts.get(unit, 0.0) for unit in run.meter.totals() if unit in stage_run.starts}
    losses = stage_run.losses
    run.stages = [*run.stages, {
        "name": stage_run.stage.name, "steps": run.step - stage_run.first_step, "share": stage_run.stage.share, "spent": spent,
        "final_loss": sum(losses) / len(losses) if losses else None,
    }]  # fmt: skip


__all__ = ["replay", "resume", "run"]
