"""Snapshots: all that training changes, copied and put back; the one way to look ahead or go back."""

from __future__ import annotations

from typing import Any

import torch

from outlay.errors import InputError
from outlay.sources.base import ActingStream, Stream
from outlay.train.assembly import Assembly, StageRun
from outlay.train.checkpoint import Snapshot, optimizer_from_plain, optimizer_to_plain
from outlay.train.companions import changing
from outlay.train.underway import Underway, trunk_of


def snapshot(assembly: Assembly, stage_run: StageRun) -> Snapshot:
    """Copy what training changes: trainable weights and buffers, optimizer, cursor, controllers and counters of the stage; on a branch, the fork
    as well."""
    weights = {name: place.detach().cpu().clone() for name, place in changing(assembly.plain_module).items()}
    tensors, groups = optimizer_to_plain(_inner(stage_run.optimizer))
    scaler = assembly.accelerator.scaler
    plain = {
        "stage": stage_run.index,
        "starts": stage_run.starts,
        "cursor": stage_run.stream.state_dict(),
        "groups": groups,
        "controllers": [part.state_dict() for part in stage_run.controllers],
        "costs": [costs.state_dict() for costs in assembly.costs],
        "micro_batch": stage_run.micro_batch,
        "next_evaluation": stage_run.next_evaluation,
        "evaluated": stage_run.evaluated,
        "bad_in_a_row": stage_run.bad_in_a_row,
        "rolled_back": stage_run.rolled_back,
        "first_step": stage_run.first_step,
        "losses": stage_run.losses,
        "scaler": scaler.state_dict() if scaler is not None else None,
        "branch": stage_run.branch.state_dict() if stage_run.branch is not None else None,
    }
    optimizer = {name: t.detach().cpu().clone() for name, t in tensors.items()}
    forked = stage_run.branch.tensors() if stage_run.branch is not None else {}
    acting = stage_run.stream.tensors() if isinstance(stage_run.stream, ActingStream) else {}
    held = {"model": weights, "optimizer": optimizer, "direction": stage_run.measuring.state(), "answers": acting, **forked}
    return Snapshot(held, plain)


def restore(assembly: Assembly, stage_run: StageRun, saved: Snapshot) -> None:
    """Put everything back as ``snapshot`` found it.

    Raises:
        InputError: when the saved weights are of another model.
    """
    restore_weights(assembly, saved)
    optimizer_from_plain(_inner(stage_run.optimizer), saved.tensors.get("optimizer", {}), saved.plain["groups"])
    load_cursor(stage_run.stream, (saved.plain["cursor"], saved.tensors.get("answers", {})))
    stage_run.branch = _branch_of(stage_run, saved)
    _load_controllers(stage_run, saved)
    for name in ("starts", "micro_batch", "next_evaluation", "evaluated", "bad_in_a_row", "rolled_back", "first_step"):
        setattr(stage_run, name, saved.plain[name])
    stage_run.losses = list(saved.plain["losses"])
    stage_run.measuring.load_state(saved.tensors.get("direction", {}), assembly.parameters())
    if assembly.accelerator.scaler is not None and saved.plain["scaler"]:
        assembly.accelerator.scaler.load_state_dict(saved.plain["scaler"])


#: where a stream stands: its state, and the tensors that belong to it
Cursor = tuple[dict[str, Any], dict[str, torch.Tensor]]


def cursor_of(stream: Stream) -> Cursor:
    """Return where a stream stands."""
    return stream.state_dict(), stream.tensors() if isinstance(stream, ActingStream) else {}


def load_cursor(stream: Stream, cursor: Cursor) -> None:
    """Put a stream back to where it stood."""
    stream.load_state_dict(cursor[0])
    if isinstance(stream, ActingStream):
        stream.load_tensors(cursor[1])


def _load_controllers(stage_run: StageRun, saved: Snapshot) -> None:
    for part, state in zip(stage_run.controllers, saved.plain["controllers"], strict=True):
        part.load_state_dict(state)


def _branch_of(stage_run: StageRun, saved: Snapshot) -> Underway | None:
    """Return the branch that a checkpoint was taken on: the controller that asked for it is asked once more, as everything was then."""
    state = saved.plain.get("branch")
    if state is None:
        return None
    _load_controllers(stage_run, trunk_of(saved))
    brancher: Any = stage_run.knobs[state["knob"]].schedule
    return Underway.of(brancher.next_branch(state["began"]), saved)


def restore_weights(assembly: Assembly, saved: Snapshot) -> None:
    """Put back the weights and buffers alone."""
    places = changing(assembly.plain_module)
    weights = saved.tensors["model"]
    if set(places) != set(weights):
        odd = sorted(set(places) ^ set(weights))[:3]
        raise InputError(f"the saved weights are of another model: they differ in {', '.join(odd)}; resume with the recipe of the run")
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(weights[name])


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner
