"""Update: one optimizer step on one batch, in pieces that fit the memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from outlay.adapters.base import Moment
from outlay.models.base import seeded
from outlay.objectives.base import Objective, Surveys
from outlay.optim.base import Explores, StepsInBackward, follow
from outlay.sources.base import Batch
from outlay.train.adapting import after_update, before_update, penalty
from outlay.train.assembly import Assembly, StageRun


@dataclass(frozen=True)
class Outcome:
    """What an update saw.

    Args:
        loss: mean over the batch's supervised units, over all processes.
        gradient_norm: before clipping.
        metrics: the objective's further measures, averaged alike, and what was asked to be measured of gradient and update.
        finite: False when loss or gradient is not finite; then nothing was changed.
    """

    loss: float
    gradient_norm: float
    metrics: dict[str, float]
    finite: bool


def set_knobs(assembly: Assembly, stage_run: StageRun, progress: float) -> dict[str, float]:
    """Read every knob at ``progress``, write it where it belongs, and return the values."""
    values = {name: knob.value(progress) for name, knob in stage_run.knobs.items()}
    if stage_run.branch is not None:
        asked = stage_run.branch.knob
        values[asked] = stage_run.knobs[asked].peak * stage_run.branch.multiplier(progress)
    for name in stage_run.stage.optimizer.knobs:
        follow(stage_run.optimizer, name, values[name])
    if "dropout" in values:
        for part in assembly.plain_module.modules():
            if isinstance(part, nn.Dropout):
                part.p = values["dropout"]
    return values


def update(
    assembly: Assembly,
    stage_run: StageRun,
    batch: Batch,
    knobs: Mapping[str, float],
    step: int,
    micro_batch: int | None = None,
    progress: float = 0.0,
) -> Outcome:
    """Compute the gradient of the mean loss over the whole batch and take an optimizer step.

    The batch is cut into pieces of ``micro_batch`` examples; each piece's mean loss is weighted by its supervised units, so that the gradient
    is that of the uncut batch. Dropout masks come from the stream (seed, "dropout", step and piece).

    Args:
        batch: this process's part, on the CPU.
        knobs: the values followed in this step.
        step: number of the step on the way to these weights, from 1.
        micro_batch: rows a piece; None for the stage's own.
        progress: share of the stage's budget spent before it; adapters may ask for it.
    """
    moment, inner = Moment(step, progress, assembly.recipe.seed), plain_optimizer(stage_run)
    before_update(assembly, moment)
    accelerator, objective = assembly.accelerator, stage_run.objective
    told = {**objective.knobs, **knobs}
    pieces = pieces_of(objective, batch, micro_batch or stage_run.micro_batch)
    if len(pieces) > 1 and isinstance(objective, Surveys):
        pieces = pieces_of(objective, survey(assembly, objective, batch, told), micro_batch or stage_run.micro_batch)
    weights = [objective.weight(piece) for piece in pieces]
    total = assembly.add_up({"weight": math.fsum(weights)})["weight"] or 1.0
    if isinstance(inner, Explores):
        return _explore(assembly, stage_run, inner, list(zip(pieces, weights, strict=True)), total, told, moment)
    sums: dict[str, torch.Tensor] = {}
    for number, (piece, weight) in enumerate(zip(pieces, weights, strict=True)):
        here = {name: column.to(assembly.context.device) for name, column in piece.items()}
        last = number == len(pieces) - 1
        with seeded(assembly.recipe.seed, f"dropout/{assembly.context.rank}", step * 4096 + number), _syncing(assembly, last):
            with accelerator.autocast():
                loss, measures = objective(assembly.module, here, told)
            extra = penalty(assembly) if last else None
            # processes average their gradients; multiplying by their number makes it the sum that the weights ask for
            scaled = loss * (weight / total * accelerator.num_processes)
            with inner.armed() if isinstance(inner, StepsInBackward) and bool(loss.isfinite()) else nullcontext():
                accelerator.backward(scaled if extra is None else scaled + extra)
        if extra is not None:
            sums["penalty"] = extra.detach() / accelerator.num_processes
        for name, value in {"loss": loss, **measures}.items():
            part = value.detach() * (weight / total)
            sums[name] = sums[name] + part if name in sums else part
    return _step(assembly, stage_run, sums, knobs, moment)


def _step(assembly: Assembly, stage_run: StageRun, sums: Mapping[str, torch.Tensor], knobs: Mapping[str, float], moment: Moment) -> Outcome:
    accelerator, optimizer, measuring = assembly.accelerator, stage_run.optimizer, stage_run.measuring
    named = assembly.parameters()
    parameters, clip = [p for _, p in named], knobs.get("clip", math.inf)
    # what is measured is the gradient unscaled and not yet clipped
    inner = plain_optimizer(stage_run)
    norm: Any
    if isinstance(inner, StepsInBackward):
        norm = inner.gradient_norm()
    else:
        norm = accelerator.clip_grad_norm_(parameters, math.inf if measuring.asked else clip)
    measured = measuring.gradient(named)
    if measuring.asked and clip < math.inf:
        nn.utils.clip_grad_norm_(parameters, clip)
    seen = assembly.add_up({name: float(value) for name, value in sums.items()})
    gradient_norm = float(norm) if norm is not None else math.nan
    finite = math.isfinite(seen["loss"]) and math.isfinite(gradient_norm)
    if finite:
        measuring.before_update(named)
        optimizer.step()
        measuring.after_update(named, knobs.get("lr"))
        after_update(assembly, stage_run, moment)
    optimizer.zero_grad(set_to_none=True)
    loss = seen.pop("loss")
    return Outcome(loss, gradient_norm, seen | measured, finite)


def plain_optimizer(stage_run: StageRun) -> torch.optim.Optimizer:
    """Return a stage's optimizer without accelerate's wrapping."""
    inner: torch.optim.Optimizer = getattr(stage_run.optimizer, "optimizer", stage_run.optimizer)
    return inner


def _explore(
    assembly: Assembly, stage_run: StageRun, optimizer: Explores, pieces: Sequence[tuple[Batch, float]], total: float, told: Mapping[str, float],
    moment: Moment,
) -> Outcome:  # fmt: skip
    """Take a step by losses alone. The loss is the mean of what was seen at both ends of the directions, the norm that of no gradient: 0."""
    accelerator, objective, rank = assembly.accelerator, stage_run.objective, assembly.context.rank
    mine = math.fsum(weight for _, weight in pieces) or 1.0

    def loss() -> float:
        seen = 0.0
        for number, (piece, weight) in enumerate(pieces):
            here = {name: column.to(assembly.context.device) for name, column in piece.items()}
            with seeded(assembly.recipe.seed, f"dropout/{rank}", moment.step * 4096 + number), accelerator.autocast():
                seen += float(objective(assembly.module, here, told)[0]) * weight / mine
        extra = penalty(assembly)
        return seen + (float(extra) if extra is not None else 0.0)

    with torch.no_grad():
        found = optimizer.explore(loss, assembly.exchange, rank)
    # parts of the batch weigh as many units as they hold
    mean = assembly.add_up({"loss": found * mine / total})["loss"]
    if math.isfinite(mean):
        after_update(assembly, stage_run, moment)
    return Outcome(mean, 0.0, {}, math.isfinite(mean))


def _syncing(assembly: Assembly, last: bool) -> AbstractContextManager[None]:
    """Let processes exchange gradients only with the last piece."""
    return nullcontext() if last else assembly.accelerator.no_sync(assembly.module)


def pieces_of(objective: Objective, batch: Batch, size: int) -> list[Batch]:
    """Return the pieces of at most ``size`` examples that the objective can be taught one by one."""
    return cut(batch, size, getattr(objective, "whole_groups", False))


def survey(assembly: Assembly, objective: Surveys, batch: Batch, told: Mapping[str, float]) -> Batch:
    """Let the objective look at the whole batch before it is cut."""
    here = {name: column.to(assembly.context.device) for name, column in batch.items()}
    with torch.no_grad(), assembly.accelerator.autocast():
        return objective.survey(assembly.module, here, told)


def cut(batch: Batch, size: int, whole_groups: bool = False) -> list[Batch]:
    """Cut a batch into the fewest pieces of at most ``size`` examples, as equal as can be; with ``whole_groups`` only between groups, where a
    group larger than that is a piece of its own."""
    examples = len(next(iter(batch.values())))
    if whole_groups:
        return _cut_groups(batch, size)
    count = max(1, -(-examples // size))
    edges = [examples * i // count for i in range(count + 1)]
    return [{name: column[start:end] for name, column in batch.items()} for start, end in pairwise(edges)]


def _cut_groups(batch: Batch, size: int) -> list[Batch]:
    groups = batch["group"]
    starts = [0, *(torch.nonzero(groups[1:] != groups[:-1]).flatten() + 1).tolist(), len(groups)]
    edges = [0]
    for start, end in pairwise(starts):
        if end - edges[-1] > size and start > edges[-1]:
            edges.append(start)
    return [{name: column[start:end] for name, column in batch.items()} for start, end in pairwise([*edges, len(groups)])]
