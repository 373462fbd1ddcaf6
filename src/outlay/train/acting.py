"""Acting: a stage whose examples are made with the model, charged piece by piece as they are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from outlay.budget import BOUGHT
from outlay.errors import RunFailed
from outlay.objectives.base import Objective, Prepares, Thins
from outlay.rollout.base import Work
from outlay.sources.base import ActingStream, Actor, Batch, Mixes, count_units
from outlay.sources.pairs import trimmed
from outlay.train.assembly import StageRun
from outlay.train.pace import Pace

if TYPE_CHECKING:
    from outlay.train.loop import Spending

ROLLOUT, PREPARE = "rollout", "prepare"
#: generations in a row that may leave nothing to learn from before the run gives up
FRUITLESS = 20


def act_if_needed(run: Spending, stage_run: StageRun, pace: Pace, knobs: Mapping[str, float], count: int, progress: float) -> bool:
    """Let a stream that acts make its examples when there are none; return False when the budget ended before there were any.

    Streams that do not act always have some.

    Raises:
        RunFailed: when generation after generation leaves nothing to learn from, which would go on for ever under a budget of steps.
    """
    stream = stage_run.stream
    if not isinstance(stream, ActingStream):
        return True
    for _ in range(FRUITLESS):
        if stream.ready():
            return True
        if not _act(run, stage_run, stream, pace, knobs, count, progress):
            return stream.ready()
    if stream.ready():
        return True
    why = f"{FRUITLESS} generations in a row left nothing to learn from: no group's answers differed in worth"
    raise RunFailed(f"{why}; begin with easier questions, longer supervised training, or no repair that drops groups")


def _act(
    run: Spending, stage_run: StageRun, stream: ActingStream, pace: Pace, knobs: Mapping[str, float], count: int, progress: float
) -> bool:
    """Act once; return whether the budget bears more of it."""
    meter, assembly = run.meter, run.assembly
    kept = _update_cost(run, stage_run, stream, count)
    place = int(stream.state_dict()["place"])
    calls = 0

    def leave(work: Work) -> bool:
        nonlocal calls
        amounts = work.amounts(run.flops_per_position)
        together = {unit: amount + kept.get(unit, 0.0) for unit, amount in amounts.items()}
        # what there was leave for beforehand has been done: it is charged in any case
        if work.when != "after" and not pace.leaves({**kept, **together}, stage_run.tail.expected(), place, calls):
            return False
        calls += 1
        stage_run.tail.began = meter.spent("seconds")  # the last piece's leave is where the tail begins
        if work.when == "ahead":
            return True
        meter.charge(account or ROLLOUT, **{unit: amount for unit, amount in amounts.items() if amount})
        return True

    def passes(of: str, positions: float) -> bool:
        nonlocal calls
        flops = run.flops_per_position * positions
        if not pace.leaves({**kept, "flops": kept.get("flops", 0.0) + flops}, stage_run.tail.expected(), place, calls):
            return False
        calls += 1
        meter.charge(account or of, flops=flops)
        return True

    def prepare(batch: Batch) -> Batch:
        # from here on nothing more is generated
        with meter.spend(account or PREPARE):
            made = prepared(run, stage_run, batch, knobs, account or PREPARE)
        if actor.needs_demonstrations:  # those that are learnt from are paid for
            meter.charge(account or PREPARE, labels=float(made["demonstration"].sum()))
        return made

    account = stage_run.branch.branch.account if stage_run.branch is not None else None
    actor = Actor(
        assembly.plain_module, assembly.context, knobs, leave, lambda name: meter.spend(account or name), prepare,
        getattr(stage_run.objective, "needs_greedy", False), getattr(stage_run.objective, "needs_demonstrations", False), progress, passes,
    )  # fmt: skip
    run.display.doing(ROLLOUT)
    with meter.spend(account or ROLLOUT):
        acted = stream.act(count, actor)
    cut = {"cut": calls} if acted.cut else {}
    run.journal.write(
        "rollout", step=run.step + 1, stage=stage_run.stage.name, progress=progress, place=acted.place, questions=acted.questions,
        seen=acted.seen, kinds=acted.kinds, divided={str(answers): count for answers, count in acted.divided.items()},
        **({"shares": acted.shares} if acted.shares else {}), **cut,
    )  # fmt: skip
    stage_run.detail = acted.detail
    if acted.cut:
        left = "what fills an update is trained on" if stream.ready() else "nothing is left to train on, so what it took is lost"
        run.journal.write(
            "decision", what=f"generation after step {run.step} cut off", why=f"the budget ({pace.ended_by}) ended in it; {left}"
        )
    return not acted.cut


def draw(run: Spending, stage_run: StageRun, knobs: Mapping[str, float], count: int) -> Batch:
    """Return the batch of the next update as the objective wants it. What a stream made by acting was prepared then, as a whole."""
    drawn, objective = stage_run.stream.draw(count), stage_run.objective
    if not isinstance(stage_run.stream, ActingStream):
        drawn = prepared(run, stage_run, drawn, knobs, PREPARE)
    return trimmed(objective.thin(drawn)) if isinstance(objective, Thins) else drawn


def paid_for(stage_run: StageRun) -> tuple[str, ...]:
    """Return the units of which the next update needs no more: those that made the answers which wait for it."""
    stream = stage_run.stream
    return ("rollouts", "new_tokens", *BOUGHT) if isinstance(stream, ActingStream) and stream.ready() else ()


def seen_of(stage_run: StageRun) -> dict[str, float]:
    """Return what was seen of the answers that the next update is made of, or of what its examples are mixed (``share/<part>``); nothing for
    other streams."""
    stream = stage_run.stream
    if isinstance(stream, ActingStream):
        return stream.seen()
    return {f"share/{name}": share for name, share in stream.shares().items()} if isinstance(stream, Mixes) else {}


def prepared(run: Spending, stage_run: StageRun, batch: Batch, knobs: Mapping[str, float], account: str) -> Batch:
    """Return the batch as the objective wants it, and charge the forward passes that this takes."""
    objective: Objective = stage_run.objective
    if not isinstance(objective, Prepares):
        return batch
    device = run.assembly.context.device
    here = {name: column.to(device) for name, column in batch.items()}
    with torch.no_grad(), run.assembly.accelerator.autocast():
        made = objective.prepare(run.assembly.module, here, {**objective.knobs, **knobs})
    if objective.passes:
        run.meter.charge(account, flops=objective.passes * run.flops_per_position * batch["input_ids"].numel())
    return {name: column.cpu() for name, column in made.items()}


def _update_cost(run: Spending, stage_run: StageRun, stream: ActingStream, count: int) -> dict[str, float]:
    """Return the most that preparing a generation and the first update on it may take."""
    if count not in stage_run.largest:
        outline, objective = stream.outline(count), stage_run.objective
        units = count_units(outline)
        passes = objective.passes * stream.updates if isinstance(objective, Prepares) else 0.0
        flops = stage_run.flops_per_example * units["examples"] + passes * run.flops_per_position * outline["input_ids"].numel()
        largest = {"steps": 1.0, **units, "flops": flops}
        if getattr(objective, "needs_demonstrations", False):
            largest["labels"] = float(len(outline["group"].unique()) * stream.updates)
        stage_run.largest[count] = largest
    return stage_run.largest[count]
