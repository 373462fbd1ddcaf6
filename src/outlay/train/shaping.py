"""Shaping: the knobs ``length`` and ``resolution`` give a drawn batch another shape before it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from outlay.errors import InputError, Problem
from outlay.knob import Knob
from outlay.sources.base import IGNORED, Batch

#: what a cut row's last piece is filled up with
_FILLERS = {"labels": IGNORED}


def shape_batch(batch: Batch, knobs: Mapping[str, float]) -> Batch:
    """Return the batch in the shape that the knobs ``length`` and ``resolution`` ask for; without them, the batch itself.

    A shape changes what is computed, never what was drawn: the cursor moves by the examples drawn, and those are what the unit ``examples``
    counts; ``tokens`` are the same before and after; FLOPs are those of the sequences and pixels that are trained on.

    Args:
        batch: as the source yields it.
        knobs: the values of this step.

    Raises:
        InputError: when the batch has nothing that the knob could shape.
    """
    if "length" in knobs:
        batch = cut_rows(batch, max(2, round(knobs["length"])))
    if "resolution" in knobs:
        batch = resample(batch, max(1, round(knobs["resolution"])))
    return batch


def cut_rows(batch: Batch, length: int) -> Batch:
    """Cut rows of L tokens into pieces of at most ``length``: columns of shape (n, L) become (n k, w).

    There are k = ceil(L / length) pieces of w = ceil(L / k) tokens a row, the fewest and as equal as can be. When ``length`` divides L they are
    exactly ``length`` long and sequences times tokens stay n L. When it does not, the last piece of a row is filled up with at most k - 1
    positions that are masked and teach nothing. No token is lost; pieces that hold nothing but padding are left out. The first token
    of a piece has nothing before it and so is no target, as with any shorter sequence. Rows that are no longer than ``length`` stay whole.

    Args:
        batch: text; columns of the shape of ``input_ids`` are cut, any other column is repeated for every piece of its row.
        length: tokens a piece at most, > 1.

    Raises:
        InputError: when the batch holds no text.
    """
    if "input_ids" not in batch:
        raise InputError(f"the knob length cuts rows of tokens, and this source yields {', '.join(sorted(batch))}; leave it out")
    rows, width = batch["input_ids"].shape
    if width <= length:
        return batch
    count = -(-width // length)
    wide = -(-width // count)
    filled = count * wide - width
    mask = batch.get("attention_mask")
    if mask is None and filled:
        mask = torch.ones_like(batch["input_ids"])
    columns = {**batch, "attention_mask": mask} if mask is not None else batch
    cut = {}
    for name, column in columns.items():
        if column.shape == (rows, width):
            cut[name] = functional.pad(column, (0, filled), value=_FILLERS.get(name, 0)).reshape(rows * count, wide)
        else:
            cut[name] = column.repeat_interleave(count, dim=0)
    if mask is None:
        return cut
    kept = cut["attention_mask"].any(dim=1)
    return cut if bool(kept.all()) else {name: column[kept] for name, column in cut.items()}


def resample(batch: Batch, resolution: int) -> Batch:
    """Bring ``inputs`` of shape (examples, channels, height, width) to ``resolution`` pixels of height, and width in proportion.

    A new pixel is the mean of those that it covers (torch's ``interpolate`` by area), up or down. Images of that height stay as they are.

    Raises:
        InputError: when the batch holds no images with channels.
    """
    inputs = batch.get("inputs")
    if inputs is None or inputs.dim() != 4:
        found = "no inputs" if inputs is None else f"inputs of shape {tuple(inputs.shape[1:])}"
        raise InputError(
            f"the knob resolution needs images of shape (channels, height, width), and this source yields {found}; set channels: true there, "
            "or leave the knob out"
        )
    height, width = inputs.shape[2:]
    if height == resolution:
        return batch
    size = (resolution, max(1, round(width * resolution / height)))
    return {**batch, "inputs": functional.interpolate(inputs, size=size, mode="area")}


def rows_a_piece(micro_batch: int, drawn: Batch, shaped: Batch) -> int:
    """Return how many rows of the shaped batch take the room of ``micro_batch`` drawn ones: as many times more as they are shorter."""
    if "input_ids" not in drawn:
        return micro_batch
    return micro_batch * max(1, drawn["input_ids"].shape[1] // shaped["input_ids"].shape[1])


def check_shapes(knobs: Mapping[str, Knob], batch: Batch, measure: Callable[[Batch], object]) -> None:
    """Refuse shape knobs that the source or the model cannot follow at their smallest value, before anything is spent.

    Args:
        knobs: the stage's.
        batch: as its source yields it.
        measure: runs the model on a shaped batch, as is done at the first update of that shape.

    Raises:
        InputError: naming the knob.
    """
    for name, least in (("length", 2), ("resolution", 1)):
        if name not in knobs:
            continue
        smallest = min(knobs[name].value(percent / 100) for percent in range(101))
        if round(smallest) < least:
            raise InputError([Problem(f"knobs.{name}", f"must be >= {least} throughout, and falls to {smallest:.4g}")])
        shaped = shape_batch(batch, {name: smallest})
        try:
            measure(shaped)
        except RuntimeError as error:  # torch's layers say so when an input is too small for them
            raise InputError([Problem(f"knobs.{name}", f"falls to {smallest:.4g}, and the model cannot take that: {error}")]) from error
