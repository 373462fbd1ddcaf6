"""Packed passes: the rows of a batch computed as one long row, without their padding, and what answers to a question share only once.

A transformer treats each token by itself but for its attention. So the tokens are laid end to end with their positions, and attention alone
brings each row's queries, keys and values together, in pieces of rows of about the same length. The prompt of neighbouring answers of one
group is the same tokens at the same places; one copy serves them all, and its gradient is the sum of what they ask of it. Tokens behind the
last label change nothing and are left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional

from outlay.sources.base import IGNORED, Batch

#: name under which transformers knows our attention
NAME = "outlay_packed"
#: packing pays when at most this share of a batch's places is left
MOST = 0.9
#: rows of a piece are at most so many times as long as its shortest, unless they are fewer than FEWEST
STRETCH, FEWEST = 1.5, 4
#: how far logits of the trial may be apart, relative to the largest, by type
TOLERANCES = {torch.float64: 3e-5, torch.float32: 3e-5, torch.bfloat16: 0.03, torch.float16: 0.01}

_layout: ContextVar[Layout] = ContextVar("outlay_packed_layout")
_allowed: ContextVar[bool] = ContextVar("outlay_packed_allowed", default=True)
_tried: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch lie.

    Args:
        ids: (tokens,) the tokens that are computed.
        positions: (tokens,) their positions in their rows.
        wanted: (labels,) the token whose logits predict each label, in row order.
        pieces: (rows, width) of each piece.
        spread: (pieces' places,) the token at each place of the pieces, one after the other; where a row is over, any.
        back: (tokens,) the place in all pieces, one after the other, that holds the token's attention.
        places: how many places the batch has, padding included.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    wanted: torch.Tensor
    pieces: tuple[tuple[int, int], ...]
    spread: torch.Tensor
    back: torch.Tensor
    places: int


@contextmanager
def padded() -> Iterator[None]:
    """Compute nothing packed meanwhile: what a batch of a shape costs must not depend on what is in it."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


def packed_logits(model: nn.Module, batch: Batch) -> torch.Tensor | None:
    """Return the logits (labels, vocabulary) that predict the batch's labels, in row order; None where the model's own pass is to be used.

    That is for models whose attention cannot be exchanged or looks at a part of the sequence, with dropout or activation checkpointing, for
    batches with padding on the left or without labels, and where packing would save too little.
    """
    if not _allowed.get() or not _fits(model):
        return None
    layout = lay_out(batch)
    if layout is None or len(layout.ids) > MOST * layout.places or not _proven(model):
        return None
    return _forward(model, layout, model)


# ---- the batch ----------------------------------------------------------------------------------------------------------------------


def lay_out(batch: Batch) -> Layout | None:
    """Return where the tokens of a batch lie when packed; None when nothing is labelled or padding is not on the right."""
    ids, mask, labelled = batch["input_ids"], batch["attention_mask"].bool(), batch["labels"][:, 1:] != IGNORED
    labelled = functional.pad(labelled, (0, 1))  # position t predicts token t + 1
    rows = torch.nonzero(labelled.any(1)).flatten()
    if len(rows) == 0 or bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        return None
    ids, labelled = ids[rows], labelled[rows]
    count, width = ids.shape
    here = torch.arange(width, device=ids.device)
    lengths = width - labelled.flip(1).int().argmax(1)
    if not bool(mask[rows, lengths - 1].all()):
        return None
    prompts = labelled.int().argmax(1) + 1
    number = torch.arange(count, device=ids.device)
    leader = number
    if "group" in batch:
        group = batch["group"][rows]
        alike = ((ids[1:] == ids[:-1]) | (here >= prompts[1:, None])).all(1)
        alike &= (group[1:] == group[:-1]) & (prompts[1:] == prompts[:-1])
        leader = torch.where(functional.pad(alike, (1, 0)), 0, number).cummax(0).values
    inside = here < lengths[:, None]
    own = inside & ((leader == number)[:, None] | (here >= prompts[:, None]))
    token = (own.flatten().cumsum(0) - 1).view(count, width)
    token = torch.where(inside, torch.where(own, token, token[leader]), 0)
    pieces, spread, place = _pieces(token, lengths)
    return Layout(ids[own], here.expand(count, width)[own], token[labelled], pieces, spread, place[own], batch["labels"].numel())


def _pieces(token: torch.Tensor, lengths: torch.Tensor) -> tuple[tuple[tuple[int, int], ...], torch.Tensor, torch.Tensor]:
    """Lay rows of about the same length together. Return the shapes of these pieces, the token at each of their places, and for each place of
    the batch (rows, width) its number among theirs."""
    ordered, order = lengths.sort(stable=True)
    edges, shortest = [0], 0
    for i, length in enumerate(ordered.tolist()):
        if length > STRETCH * shortest and (shortest == 0 or i - edges[-1] >= FEWEST):
            if i:
                edges.append(i)
            shortest = length
    pieces, spread, place, before = [], [], torch.zeros_like(token), 0
    for start, end in pairwise([*edges, len(ordered)]):
        rows, width = order[start:end], int(ordered[end - 1])
        pieces.append((len(rows), width))
        spread.append(token[rows, :width].flatten())
        place[rows, :width] = before + torch.arange(len(rows) * width, device=token.device).view(-1, width)
        before += len(rows) * width
    return tuple(pieces), torch.cat(spread), place


# ---- the model ----------------------------------------------------------------------------------------------------------------------


def _fits(model: nn.Module) -> bool:
    """Say whether this may be a model of transformers, bare or with adapters, that attends to all before it through their interface."""
    whole = _bare(model)
    config: Any = getattr(whole, "config", None)
    return (
        not hasattr(model, "_orig_mod")  # compiled: every packed batch would be a shape of its own
        and getattr(type(whole), "_supports_attention_backend", False)
        and config._attn_implementation == "sdpa"
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and (getattr(config, "sliding_window", None) is None or not getattr(config, "use_sliding_window", True))
        and not any(getattr(part, "gradient_checkpointing", False) for part in whole.modules())
        and not (model.training and _drops(model, config))
        and {"position_ids", "logits_to_keep"} <= _taken(type(whole).forward)
    )


def _bare(model: Any) -> Any:
    """Return the model without its adapters' wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@cache
def _taken(forward: Callable[..., Any]) -> frozenset[str]:
    """Return the names of what a forward pass takes."""
    return frozenset(inspect.signature(forward).parameters)


def _drops(model: nn.Module, config: Any) -> bool:
    """Say whether dropout is on: answers would share the mask of their prompt."""
    return getattr(config, "attention_dropout", 0.0) > 0 or any(isinstance(part, nn.Dropout) and part.p > 0 for part in model.modules())


def _proven(model: nn.Module) -> bool:
    """Say whether a trial with a few tokens gave what the model's own pass gives; tried once for each model."""
    if model not in _tried:
        _tried[model] = _trial(model)
    return _tried[model]


def _trial(model: nn.Module) -> bool:
    whole: Any = model
    weight = whole.get_input_embeddings().weight
    ids = torch.arange(32, device=weight.device).view(4, 8) * 7 % weight.shape[0]
    ids[1, :3] = ids[0, :3]
    lengths = torch.tensor([8, 5, 7, 6], device=weight.device)[:, None]
    here = torch.arange(8, device=weight.device)
    labels = torch.where((here >= 3) & (here < lengths), ids, IGNORED)
    batch = {
        "input_ids": ids, "attention_mask": (here < lengths).long(), "labels": labels,
        "group": torch.tensor([0, 0, 1, 1], device=weight.device),
    }  # fmt: skip
    layout, trained = lay_out(batch), [part for part in model.modules() if part.training]
    if layout is None:
        return False
    model.eval()
    try:
        # in the weights' own precision: accelerate wraps the forward of the model itself
        forward = getattr(model, "_original_forward", model)
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            plain = forward(input_ids=ids, attention_mask=batch["attention_mask"]).logits[:, :-1][labels[:, 1:] != IGNORED]
            found = _forward(model, layout, forward)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return False  # a model that takes other arguments than most; it is not computed packed
    finally:
        for part in trained:
            part.training = True
    # accelerators may multiply single precision in a shorter one
    shorter = plain.dtype == torch.float32 and weight.device.type != "cpu"
    allowed = TOLERANCES.get(plain.dtype, 0.0) * (100 if shorter else 1)
    return found.shape == plain.shape and bool((found - plain).abs().max() <= allowed * plain.abs().max())


def _forward(model: nn.Module, layout: Layout, forward: Callable[..., Any]) -> torch.Tensor:
    from transformers import AttentionInterface

    whole = _bare(model)
    AttentionInterface.register(NAME, _attend)
    token, usual = _layout.set(layout), whole.config._attn_implementation
    whole.config._attn_implementation = NAME
    try:
        logits: torch.Tensor = forward(
            input_ids=layout.ids[None], position_ids=layout.positions[None], use_cache=False, logits_to_keep=layout.wanted
        ).logits
    finally:
        whole.config._attn_implementation = usual
        _layout.reset(token)
    return logits[0]


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention (1, tokens, heads, width) for queries, keys and values (1, heads, tokens, width) as transformers hands them over."""
    layout = _layout.get()
    heads = [each.shape[1] for each in (query, key, value)]
    sizes = [rows * width for rows, width in layout.pieces]
    spread = [each[0].transpose(0, 1).flatten(1).index_select(0, layout.spread).split(sizes) for each in (query, key, value)]
    found = []
    for shape, *piece in zip(layout.pieces, *spread, strict=True):
        queries, keys, values = (each.view(*shape, count, -1).transpose(1, 2) for each, count in zip(piece, heads, strict=True))
        # what lies behind a row's end is seen by nobody who is read
        attended = functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=scaling, enable_gqa=heads[0] != heads[1]
        )
        found.append(attended.transpose(1, 2).flatten(0, 1).flatten(1))
    together = torch.cat(found) if len(found) > 1 else found[0]
    return together.index_select(0, layout.back).unflatten(1, (heads[0], -1))[None], None
