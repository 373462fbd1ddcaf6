"""Preparing stages: what a step costs, how a batch is cut, the compiler, and a measured probe. All before anything is created."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from outlay.controllers.base import Brancher
from outlay.errors import InputError
from outlay.meter import Meter
from outlay.optim.base import Spares
from outlay.planning.cost import Cost
from outlay.planning.memory import Memory, available_memory, choose_micro_batch, memory, return_freed_memory
from outlay.planning.probe import ProbeResult, probe
from outlay.planning.text import amount
from outlay.sources.base import ActingStream, Batch, count_units
from outlay.train.assembly import Assembly, StageRun, evaluation_bound, forward_flops_per_position, open_stage, training_flops
from outlay.train.pace import flow_limits
from outlay.train.shaping import check_shapes
from outlay.train.snapshots import restore, snapshot
from outlay.train.update import set_knobs, update

#: columns that only answers with rewards have
ANSWER_COLUMNS = ("reward", "group", "judged", "ended", "behaviour", "limit", "advantage")


@dataclass(frozen=True)
class Prepared:
    """What is known of a stage before it is spent.

    Args:
        batch: this process's part of its first batch.
        cost: what an example of that shape costs.
        micro_batch: examples a forward pass.
        why: the reason for ``micro_batch``.
        most: examples of this process's part of the largest batch that the knob ``batch_size`` asks for.
    """

    batch: Batch
    cost: Cost
    micro_batch: int
    why: str
    most: int


def prepare(assembly: Assembly, meter: Meter, settings: Mapping[str, Any]) -> list[Prepared]:
    """Measure every stage's first batch and decide how it is cut; what measuring takes is charged to ``plan``.

    Args:
        settings: what an earlier process of this run decided (its journal's first line), which must be kept.

    Raises:
        InputError: when not even one example fits the memory ceiling, a process would get no example, or probe and last evaluation take the
            whole budget.
    """
    kept = settings.get("micro_batches") or [None] * len(assembly.recipe.stages)
    prepared = []
    for index, size in enumerate(kept):
        _check_smallest_batch(assembly, index)
        _check_longest_answer(assembly, index)
        with _columns_explained(assembly, index):
            batch = assembly.first_batch(index)
            check_shapes(assembly.recipe.stages[index].knobs, batch, partial(assembly.cost_of, index, meter=meter))
            cost = assembly.cost_of(index, batch, meter)
        most = assembly.largest_batch(index)
        micro_batch, why = (size, "as the run began") if size else _choose_pieces(assembly, index, most, cost)
        prepared.append(Prepared(batch, cost, micro_batch, why, most))
    _check_overheads(assembly, meter, prepared)
    _keep_heap_tight(assembly, prepared)
    return prepared


def needed_memory(assembly: Assembly, index: int, known: Prepared) -> Memory:
    """Return what a stage holds at its worst moment, by part."""
    pieces, optimizer = known.micro_batch < known.most, assembly.recipe.stages[index].optimizer
    return memory(assembly.plain_module, optimizer, known.cost, known.micro_batch, again=pieces)


def _keep_heap_tight(assembly: Assembly, prepared: list[Prepared]) -> None:
    """Make a CPU's heap give freed tensors back at once where the ceiling needs it: left alone, it grows to twice what is alive."""
    ceiling = assembly.recipe.budget.ceilings.get("memory")
    if ceiling is None or torch.device(assembly.context.device).type != "cpu":
        return
    if 2 * max(needed_memory(assembly, index, known).total for index, known in enumerate(prepared)) > ceiling:
        return_freed_memory()


def _check_smallest_batch(assembly: Assembly, index: int) -> None:
    stage, world = assembly.recipe.stages[index], assembly.context.world
    least = min(stage.examples(percent / 100) for percent in range(101))
    if least < world:
        raise InputError(
            f"stage {stage.name!r} takes {least} examples an update, and {world} processes need at least one each; raise batch_size"
        )


def _check_longest_answer(assembly: Assembly, index: int) -> None:
    """Refuse answers that are longer than the model reads before an earlier stage has been paid for."""
    from outlay.rollout.cache import longest_sequence

    stream, stage = assembly.streams[index], assembly.recipe.stages[index]
    room = longest_sequence(assembly.plain_module) if isinstance(stream, ActingStream) else None
    if room is None or not isinstance(stream, ActingStream):
        return
    longest = int(stream.outline(stage.examples(0.0))["attention_mask"].sum(1).max())
    if longest - 1 > room:  # the last token is not read
        raise InputError(
            f"stage {stage.name!r}: prompt and answer take up to {longest} tokens and the model reads {room}; lower new_tokens, ask shorter "
            "questions, or take a model with more context"
        )


@contextmanager
def _columns_explained(assembly: Assembly, index: int) -> Iterator[None]:
    """Say what an objective lacks when its source does not give a column that it reads."""
    try:
        yield
    except KeyError as error:
        stage, column = assembly.recipe.stages[index], error.args[0] if error.args else ""
        if column not in ANSWER_COLUMNS:
            raise
        objective, source = type(stage.objective).__name__, type(stage.source).__name__
        raise InputError(
            f"stage {stage.name!r}: {objective} reads the column {column!r}, which {source} does not give; sources/rollouts and "
            "sources/preferences give answers with rewards, for next_token and its kin any source will do"
        ) from error


def _check_overheads(assembly: Assembly, meter: Meter, prepared: list[Prepared]) -> None:
    first, steps = prepared[0], assembly.recipe.probe_steps
    bound = evaluation_bound(assembly, forward_flops_per_position(first.cost, first.batch))
    probes = [_units(assembly, index, known) for index, known in enumerate(prepared)] if steps else []
    for unit, limit in flow_limits(assembly.recipe.budget).items():
        probing = (steps + 1) * sum(units.get(unit, 0.0) for units in probes)
        if (bound.get(unit) or probing) and meter.spent(unit) + probing + bound.get(unit, 0.0) >= limit:
            parts = f"the evaluation at the end may take {amount(unit, bound.get(unit, 0.0))}"
            taken = parts + (f" and the probe takes {amount(unit, probing)}" if probing else "") + f" of a budget of {amount(unit, limit)}"
            raise InputError(f"{taken}, so that nothing is left to train on; ask less (evaluate.exams, probe_steps) or raise the budget")


def _units(assembly: Assembly, index: int, known: Prepared) -> dict[str, float]:
    mine = count_units(known.batch)
    return assembly.add_up({**mine, "flops": training_flops(assembly.recipe.stages[index], known.cost) * mine["examples"]})


def _choose_pieces(assembly: Assembly, index: int, examples: int, cost: Cost) -> tuple[int, str]:
    recipe, optimizer = assembly.recipe, assembly.recipe.stages[index].optimizer
    if recipe.micro_batch is not None:
        piece, why = min(recipe.micro_batch, examples), "the recipe says so"
    else:
        ceiling = (recipe.budget.ceilings.get("memory") or available_memory(assembly.context.device)) - _kept_beside(assembly, index)
        piece, why = choose_micro_batch(assembly.plain_module, optimizer, cost, examples, ceiling)
    if isinstance(optimizer, Spares) and optimizer.whole_batch:
        _check_whole(assembly, index, piece, examples, why)
    return piece, why


def _check_whole(assembly: Assembly, index: int, piece: int, examples: int, why: str) -> None:
    """Refuse what steps within the backward pass cannot do: batches in pieces, several processes, scaled gradients."""
    stage = assembly.recipe.stages[index]
    who = f"stage {stage.name!r}: {type(stage.optimizer).__name__} takes steps during the backward pass and"
    if piece < examples:
        raise InputError(
            f"{who} needs the batch of {examples} in one piece, and it is cut into pieces of {piece} ({why}); lower batch_size"
        )
    if assembly.context.world > 1:
        raise InputError(f"{who} runs in one process, found {assembly.context.world}; take the optimizer itself")
    if assembly.accelerator.scaler is not None:
        raise InputError(f"{who} cannot take scaled gradients; set precision to bf16 or fp32")


def _kept_beside(assembly: Assembly, index: int) -> int:
    """Return the bytes that a stage keeps beside model and optimizer: the direction of the last update, where somebody asks for it; and, on a
    CPU, the fork of a branch."""
    stage = assembly.recipe.stages[index]
    trained = dict(assembly.parameters())
    weights = sum(p.numel() * p.element_size() for p in trained.values())
    directions = int("descent_alignment" in stage.measured()) * weights
    branches = any(isinstance(knob.schedule, Brancher) for knob in stage.knobs.values())
    if not branches or torch.device(assembly.context.device).type != "cpu":
        return directions
    return 2 * directions + weights + stage.optimizer.state_bytes({name: tuple(p.shape) for name, p in trained.items()})


def warm_up_compiler(assembly: Assembly, meter: Meter, prepared: list[Prepared]) -> None:
    """Compile the model and run every stage's shapes once, on the account ``compile``; weights and optimizers are put back."""
    with meter.spend("compile"):
        assembly.plain_module.compile()
        for index, stage in enumerate(prepared):
            stage_run = open_stage(assembly, index, {}, stage.micro_batch)
            saved = snapshot(assembly, stage_run)
            _one_step(assembly, stage_run, stage.batch)
            restore(assembly, stage_run, saved)


def measure_steps(assembly: Assembly, meter: Meter, prepared: list[Prepared], steps: int) -> list[ProbeResult]:
    """Time real steps of every stage on the account ``probe``; what they use is charged, and weights and optimizers are put back."""
    results = []
    for index, stage in enumerate(prepared):
        stage_run = open_stage(assembly, index, {}, stage.micro_batch)
        saved = snapshot(assembly, stage_run)
        results.append(probe(lambda run=stage_run, batch=stage.batch: _one_step(assembly, run, batch), meter, steps))  # type: ignore[misc]
        restore(assembly, stage_run, saved)
        units = _units(assembly, index, stage)
        meter.charge("probe", **{unit: amount * results[-1].ran for unit, amount in units.items()})
    return results


def _one_step(assembly: Assembly, stage_run: StageRun, batch: Batch) -> None:
    outcome = update(assembly, stage_run, batch, set_knobs(assembly, stage_run, 0.0), 0)
    if not outcome.finite:
        raise InputError("the loss or gradient of the first batch is not finite; look at the data and the model before spending on it")
