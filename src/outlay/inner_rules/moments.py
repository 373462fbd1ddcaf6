"""Moments of gradients in a format: what inner rules keep from step to step."""

from __future__ import annotations

from typing import Literal

import torch

from outlay.formats.base import Format
from outlay.layout import Layout, Shape, Slot, Slots, State
from outlay.rng import derive

Rounding = Literal["nearest", "stochastic"]


def moment_layout(name: str, form: Format | None, shape: Shape) -> Layout:
    """Return what a moment takes in a format; as it is, in the parameter's type, without one."""
    if form is None:
        return {name: Slot(shape)}
    return {f"{name}.{part}": slot for part, slot in form.layout(shape).items()}


def read_moment(state: State, name: str, form: Format | None, shape: Shape) -> torch.Tensor:
    """Return a moment: the kept tensor itself without a format, else one of its own."""
    return state[name] if form is None else form.decode(Slots(state, f"{name}."), shape)


def write_moment(state: State, name: str, form: Format | None, value: torch.Tensor, draw: torch.Generator | None = None) -> None:
    """Keep a moment that was changed in place; with ``draw`` rounded stochastically."""
    if form is not None:
        for part, kept in form.encode(value, draw).items():
            state[f"{name}.{part}"] = kept


def rounding_stream(rounding: Rounding, name: str, step: int, like: torch.Tensor) -> torch.Generator | None:
    """Return the generator that rounds a moment at a step, None for rounding to nearest.

    A rule knows the step and the shape alone, and its stream follows from them: a resumed run draws the same numbers, and so do equal shapes in the
    same step, each of which is right on average for itself.
    """
    if rounding == "nearest":
        return None
    return torch.Generator(like.device).manual_seed(derive(0, f"moments/{name}/{'x'.join(map(str, like.shape))}", step))


def turn_moment(state: State, name: str, form: Format | None, turn: torch.Tensor, shape: Shape) -> None:
    """Bring a mean of gradients, (rows, rank), into the coordinates R_new = R_old ``turn``."""
    moment = read_moment(state, name, form, shape)
    moment.copy_(moment @ turn.to(moment.dtype))
    write_moment(state, name, form, moment)


def check_decay(name: str, value: float) -> None:
    """Refuse a decay outside of [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), found {value}")
