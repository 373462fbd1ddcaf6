"""The loop: one for every stage.

progress -> knobs -> batch -> does it fit? -> objective -> optimizer -> record -> { meter, controllers, journal, display }
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from outlay.errors import RunFailed
from outlay.meter import Meter
from outlay.objectives.base import Surveys
from outlay.optim.base import settled
from outlay.record import Record
from outlay.reporting.terminal import Display
from outlay.sources.base import Batch, count_units
from outlay.train.acting import act_if_needed, draw, paid_for, seen_of
from outlay.train.assembly import Assembly, StageRun, observe, training_flops
from outlay.train.branching import land, took_step, turn
from outlay.train.checkpoint import Snapshot
from outlay.train.examining import sit
from outlay.train.journal import Journal, journaled
from outlay.train.pace import Go, Pace
from outlay.train.saving import Saver
from outlay.train.shaping import rows_a_piece, shape_batch
from outlay.train.signals import Signals
from outlay.train.underway import ROUNDING
from outlay.train.update import Outcome, pieces_of, set_knobs, update

#: share of the last stage after which the report is rehearsed
REHEARSE_AT = 0.9


@dataclass
class Spending:
    """The run while it is being spent: everything the loop writes to.

    Args:
        assembly: the recipe made real.
        meter: the books.
        journal: what happened.
        display: what a person sees.
        signals: whether someone asked to stop.
        saver: writes checkpoints and knows when the next is due.
        flops_per_position: FLOPs of a forward pass a position, for evaluations.
        step: updates finished in the whole run, those on branches included.
        aside: how many of them were put back; without them, what is left led to the weights as they are, and random streams go by that.
        branches: branches begun in the whole run.
        rehearsal: writes the report to learn what that takes by now; called once, late in the last stage. None where seconds are not limited.
    """

    assembly: Assembly
    meter: Meter
    journal: Journal
    display: Display
    signals: Signals
    saver: Saver
    flops_per_position: float = 0.0
    step: int = 0
    aside: int = 0
    branches: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    metrics_start: dict[str, float] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    rehearsal: Callable[[], None] | None = None


def spend_stage(run: Spending, stage_run: StageRun, pace: Pace) -> Literal["spent", "stopped"]:
    """Train until the stage's share of the budget is used up, or until somebody asks to stop.

    Raises:
        RunFailed: when losses stay non-finite and the recipe's patience is over.
    """
    meter = run.meter
    while True:
        go = pace.begin(save=run.saver.due(run.step), stop=run.signals.stop, paid=paid_for(stage_run))
        if go is None:
            if stage_run.branch is None:
                return "spent"
            land(run, stage_run, pace)
            continue
        if go.stop:
            return "stopped"
        if go.save:
            run.saver.save(run, stage_run, pace)
            continue  # what saving took may be what the step would have needed
        if evaluate_if_due(run, stage_run, pace, go.progress) or rehearse_if_due(run, stage_run, pace, go.progress):
            continue
        knobs = set_knobs(run.assembly, stage_run, go.progress)
        count = max(1, round(knobs.get("batch_size", stage_run.stage.batch_size)))
        account = stage_run.branch.branch.account if stage_run.branch is not None else None
        if not act_if_needed(run, stage_run, pace, knobs, count, go.progress):
            if stage_run.branch is None:
                return "spent"
            land(run, stage_run, pace)
            continue
        with meter.spend(account or "data"):
            drawn = draw(run, stage_run, knobs, count)
            batch = shape_batch(drawn, knobs)
            cost = step_cost(run, stage_run, batch, drawn)
        if turn(run, stage_run, pace, go.progress, cost):
            continue  # what that took may be what the step would have needed, and the step would be another
        if not pace.fits(cost):
            if stage_run.branch is None:
                return "spent"
            land(run, stage_run, pace)
            continue
        with meter.spend(account or "train"):
            place = run.step - run.aside + 1
            seen = seen_of(stage_run)
            rows = rows_a_piece(stage_run.micro_batch, drawn, batch)
            outcome = update(run.assembly, stage_run, batch, knobs, place, rows, go.progress)
            meter.charge(account or "train", **cost)
        stage_run.stream.advance(count)
        with meter.spend("record"):
            finish_step(run, stage_run, pace, go, knobs, cost, outcome, seen)
        if stage_run.branch is not None:
            if not outcome.finite:
                land(run, stage_run, pace, diverged=True)
            continue
        if not outcome.finite:
            heal(run, stage_run)


def step_cost(run: Spending, stage_run: StageRun, batch: Batch, drawn: Batch) -> dict[str, float]:
    """Return what training on the batch uses of every counted unit, over all processes; a shape not seen before is measured, and charged.

    Examples are counted as drawn from the source, whatever shape they are trained in.
    """
    cost = run.assembly.cost_of(stage_run.index, batch, run.meter)
    units, pieces = count_units(batch), rows_a_piece(stage_run.micro_batch, drawn, batch)
    each = training_flops(stage_run.stage, cost)
    if isinstance(stage_run.objective, Surveys) and len(pieces_of(stage_run.objective, batch, pieces)) > 1:
        each += cost.forward_flops_per_example  # before it is cut the batch is looked at as a whole
    mine = {**units, "examples": count_units(drawn)["examples"], "flops": each * units["examples"]}
    return {"steps": 1.0, **run.assembly.add_up(mine)}


def finish_step(
    run: Spending,
    stage_run: StageRun,
    pace: Pace,
    go: Go,
    knobs: dict[str, float],
    cost: dict[str, float],
    outcome: Outcome,
    seen: Mapping[str, float],
) -> None:
    """Make the step's record and hand it to everyone who reads it."""
    run.step += 1
    record = Record(
        kind="step", step=run.step, stage=stage_run.stage.name, progress=go.progress, loss=outcome.loss, gradient_norm=outcome.gradient_norm,
        knobs=knobs, charges=cost, metrics={**outcome.metrics, **seen}, outcome="ok" if outcome.finite else "skipped",
        detail=stage_run.detail,
    )  # fmt: skip
    stage_run.tail.ended(run.meter.spent("seconds"))
    observe(stage_run, record)
    if outcome.finite:
        stage_run.losses, stage_run.bad_in_a_row = [*stage_run.losses[-19:], outcome.loss], 0
    if stage_run.branch is not None:
        took_step(run, stage_run.branch, record)
    else:
        run.journal.write("step", **journaled(record))
    run.display.step(record, run.meter.totals(), run.meter.progress, pace.seconds_left())
    pace.lap()


def evaluate_if_due(run: Spending, stage_run: StageRun, pace: Pace, progress: float) -> bool:
    """Evaluate when the stage has come to the next point at which the recipe asks for it, unless the budget could not bear it.

    That is before the step which begins there, so that a schedule which ends a decay at that point is seen with the decay. Branches are not
    interrupted. Returns whether it was done.
    """
    due, every = stage_run.next_evaluation, run.assembly.recipe.evaluate.every
    # multiples of ``every`` and shares such as 12 / 20 may differ in their last bit
    if due is None or every is None or progress < due - ROUNDING or due >= 1 - ROUNDING or stage_run.branch is not None:
        return False
    stage_run.next_evaluation = every * (math.floor(progress / every + ROUNDING) + 1)
    if stage_run.evaluated == run.step:
        return False
    if not pace.evaluates():
        why = "with the last one, which is reserved, it would take more than is left of the budget"
        run.journal.write("decision", what=f"evaluation after step {run.step} left out", why=why)
        return False
    with settled(stage_run.stage.optimizer, stage_run.optimizer):
        metrics = examine(run, stage_run.stage.name, progress, "during")
    observe(stage_run, Record("evaluation", run.step, stage_run.stage.name, progress, metrics=metrics))
    stage_run.evaluated = run.step
    return True


def rehearse_if_due(run: Spending, stage_run: StageRun, pace: Pace, progress: float) -> bool:
    """Rehearse the end once the run has nearly come to it: the report grows with the journal, and a checkpoint with the optimizer's state,
    which the first one did not hold. Where too little is left to pay for that, it is left out. Returns whether it was done."""
    last = stage_run.index == len(run.assembly.recipe.stages) - 1
    if run.rehearsal is None or not last or progress < REHEARSE_AT or stage_run.branch is not None:
        return False
    rehearsal, run.rehearsal = run.rehearsal, None
    parts = ("report", "checkpoint") if run.saver.saves < 2 else ("report",)
    expected = run.saver.reserve.margin * sum(run.saver.reserve.seconds.get(part, 0.0) for part in parts)
    if not run.assembly.agree([float(expected < (pace.seconds_left() or 0.0))])[0]:
        return False
    rehearsal()
    if run.saver.saves < 2:
        run.saver.save(run, stage_run, pace)
    return True


def examine(run: Spending, stage: str, progress: float, when: Literal["start", "during", "end"]) -> dict[str, float]:
    """Run the exams, charge them, and put the results on record."""
    run.metrics = metrics = sit(run)
    run.journal.write("evaluation", step=run.step, stage=stage, progress=progress, when=when, metrics=metrics)
    run.display.say(f"evaluation ({when}): " + ", ".join(f"{name} {value:.4g}" for name, value in headline(metrics).items()))
    return metrics


def headline(metrics: dict[str, float], most: int = 4) -> dict[str, float]:
    """Return the metrics that sum the others up: the shortest names first."""
    names = sorted(metrics, key=lambda name: (name.count("/"), list(metrics).index(name)))[:most]
    return {name: metrics[name] for name in names}


def heal(run: Spending, stage_run: StageRun) -> None:
    """Answer a step whose loss or gradient was not finite, as the recipe's health says. The update was withheld already."""
    health = run.assembly.recipe.health
    stage_run.bad_in_a_row += 1
    escalate = stage_run.bad_in_a_row >= health.patience
    run.journal.write("decision", what=f"step {run.step} skipped", why="the loss or gradient was not finite; the batch stays spent")
    rolling = health.nonfinite == "roll_back"
    if health.nonfinite == "stop" or (escalate and (rolling or stage_run.rolled_back >= health.patience)):
        raise RunFailed(f"the loss or gradient was not finite at step {run.step}; lower the learning rate or look at the data of that step")
    if rolling or escalate:
        saved: Snapshot | None = run.saver.newest()
        if saved is None:
            raise RunFailed(f"the loss was not finite at step {run.step} and there is no checkpoint to roll back to")
        run.saver.roll_back(run, stage_run, saved)
        stage_run.bad_in_a_row = 0 if escalate else stage_run.bad_in_a_row
