"""Columns: keys and values of rows that write side by side, laid out so that a step reads memory from front to end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from outlay.rollout.passes import Prefix
from outlay.rollout.shared import SharedPrompts

#: columns written before they are moved to the others: enough to seldom move, few enough to be cheap to look at
BLOCK = 16
#: bytes of buffers that are kept from one call to the next
_KEPT = 2**28


class Room:
    """Buffers used again and again: taking fresh memory from the system costs about as much as writing a short answer."""

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape with whatever lies in its memory, of the dtype and device of ``like``."""
        count, held = math.prod(shape), self._held.get(name)
        if held is None or held.numel() < count or held.dtype != like.dtype or held.device != like.device:
            held = self._held[name] = torch.empty(count, dtype=like.dtype, device=like.device)
        return held[:count].view(*shape)

    def release(self) -> None:
        """Give back what is too large to be kept."""
        if sum(held.numel() * held.element_size() for held in self._held.values()) > _KEPT:
            self._held.clear()


class Columns:
    """Keys and values of the rows in places 0 to n - 1, each row with a few heads; (place, head) is a lane.

    What is read in one step goes into the same column for all rows. The newest columns are in an open block, (2, lanes, ``BLOCK``, width) a layer,
    keys before values. A full block joins the closed columns, (2, lanes, closed, width), which have no gap between lanes: memory is read about
    twice as fast that way. The first ``region`` closed columns hold prompts, ending at the last of them. Columns that no row needs are left
    behind. A row looks where its bias is 0, not where it is -inf; what lies there is finite all the same, as 0 times it must be 0.

    Args:
        room: where buffers come from.
        layers: of the model.
        places: rows at most.
        heads: of keys in a layer.
        region: tokens of a prompt at most; 0 where prompts are kept elsewhere.
        limit: new tokens of a row at most.
        like: a tensor of the dtype and on the device; its last dimension is the width of a head.
    """

    def __init__(self, room: Room, layers: int, places: int, heads: int, region: int, limit: int, like: torch.Tensor) -> None:
        self._heads, self._region = heads, region
        self._lanes, self._width = places * heads, like.shape[-1]
        most = 2 * self._lanes * (region + -(-limit // BLOCK) * BLOCK + BLOCK) * self._width
        # one more than there are layers: a layer's columns move into the spare one, and leave it theirs
        self._slabs = [room.take(f"slab {i}", (most,), like) for i in range(layers + 1)]
        self._open = room.take("open", (layers, 2, self._lanes, BLOCK, self._width), like)
        self._open_bias = torch.empty(self._lanes, 1, BLOCK, dtype=like.dtype, device=like.device)
        self._closed_bias = torch.empty(self._lanes, 1, region, dtype=like.dtype, device=like.device)
        self._layers = layers
        #: what lies in the open block: keys transposed and values by lane, keys in pairs and values by row
        self._new = [
            (block[0].mT, block[1], pairs(block[0]).unflatten(0, (places, heads)), block[1].unflatten(0, (places, heads)))
            for block in self._open
        ]
        self._clear()

    def _clear(self) -> None:
        self._steps = self._written = 0
        #: first step whose column is among the closed ones
        self._first = 0
        self._began: list[int] = []
        self._lengths: list[int] = []
        self._ragged = False
        self._open.zero_()
        self._open_bias.fill_(-torch.inf)
        self._closed_bias = self._closed_bias[:, :, : self._region]
        self._closed = [self._laid(i, self._region) for i in range(self._layers)]

    def _laid(self, slab: int, columns: int) -> torch.Tensor:
        return self._slabs[slab][: 2 * self._lanes * columns * self._width].view(2, self._lanes, columns, self._width)

    def seat(self, first: int, prefixes: Sequence[Prefix]) -> None:
        """Let rows that go on from these prefixes sit in the places from ``first`` on."""
        if first == 0:
            self._clear()
        place = first
        for count, prefix, apart in _runs(prefixes):
            lanes = slice(place * self._heads, (place + count) * self._heads)
            self._fill(lanes, count, prefix, apart)
            if self._steps:
                for closed in self._closed:
                    closed[:, lanes, self._region :] = 0
                self._open[:, :, lanes] = 0
                self._closed_bias[lanes, :, self._region :] = -torch.inf
                self._open_bias[lanes] = -torch.inf
            place += count
        self._began[first:] = [self._steps] * len(prefixes)
        self._lengths[first:] = [prefix.length for prefix in prefixes]
        self._ragged = self._ragged or self._steps > 0 or (self._region > 0 and min(self._lengths) < self._region)
        self._look()

    def _fill(self, lanes: slice, count: int, prefix: Prefix, apart: bool) -> None:
        """Put prompts into the region: ``count`` times the same one, or ``apart``, ``count`` that lie one behind the other."""
        begin, region = self._region - prefix.length, self._region
        if not region:
            return
        span = slice(prefix.begin, prefix.begin + prefix.length * (count if apart else 1))
        for layer, closed in enumerate(self._closed):
            mine = closed[:, lanes].unflatten(1, (count, self._heads))
            for goal, kept in zip(mine, (prefix.keys[0], prefix.values[0]), strict=True):
                own = kept[layer, :, span].unflatten(1, (-1, prefix.length))  # (heads, prompts, length, width)
                goal[:, :, begin:region] = own.transpose(0, 1)
            mine[:, :, :, :begin] = 0
        self._closed_bias[lanes, :, :begin] = -torch.inf
        self._closed_bias[lanes, :, begin:region] = 0

    def close_up(self, to: Sequence[int], source: Sequence[int], left: int) -> None:
        """Let the rows in the places ``source`` sit in the places ``to``; the first ``left`` places remain."""
        heads = self._heads
        for new, old in zip(to, source, strict=True):
            goal, origin = slice(new * heads, (new + 1) * heads), slice(old * heads, (old + 1) * heads)
            for closed in self._closed:
                closed[:, goal] = closed[:, origin]
            self._open[:, :, goal] = self._open[:, :, origin]
            self._closed_bias[goal] = self._closed_bias[origin]
            self._open_bias[goal] = self._open_bias[origin]
            self._began[new], self._lengths[new] = self._began[old], self._lengths[old]
        del self._began[left:], self._lengths[left:]
        if left:
            self._look()

    def step(self) -> None:
        """Open the column that every row writes next."""
        if self._written == BLOCK:
            self._close()
        self._open_bias[: len(self._began) * self._heads, :, self._written] = 0
        self._written += 1
        self._steps += 1

    def newest(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where the rows' newest keys, in pairs, and values go, each (rows, heads, ...)."""
        view, column = self._views[layer], self._written - 1
        return view.pairs.select(2, column), view.news.select(2, column)

    def attend(self, layer: int, queries: torch.Tensor, prompts: SharedPrompts | None) -> torch.Tensor:
        """Return what the rows' queries (lanes, queries of a lane, width) find, of the same shape."""
        view, count, parts = self._views[layer], self._closed[layer].shape[2], []
        if prompts is not None:
            parts.append(prompts.scores(layer, queries))
        if count:
            bias = self._closed_bias[: len(queries)] if self._ragged else None
            parts.append(torch.bmm(queries, view.keys) if bias is None else torch.baddbmm(bias, queries, view.keys))
        parts.append(torch.baddbmm(self._new_bias, queries, view.new_keys))
        chances = torch.softmax(torch.cat(parts, -1), -1)
        found = torch.bmm(chances[:, :, -BLOCK:], view.new_values)
        if count:
            found.baddbmm_(chances[:, :, -BLOCK - count : -BLOCK], view.values)
        return found if prompts is None else found.add_(prompts.values(layer, chances[:, :, : -BLOCK - count]))

    def _look(self) -> None:
        """Make the views of what belongs to the rows that are there."""
        rows = len(self._began)
        lanes = rows * self._heads
        self._new_bias = self._open_bias[:lanes]
        self._views = [
            _View(closed[0, :lanes].mT, closed[1, :lanes], keys[:lanes], values[:lanes], in_pairs[:rows], by_row[:rows])
            for closed, (keys, values, in_pairs, by_row) in zip(self._closed, self._new, strict=True)
        ]

    def _close(self) -> None:
        """Move the open block to the closed columns, and leave behind those of before the oldest row began."""
        lanes, begin = len(self._began) * self._heads, self._region
        unneeded = min(min(self._began) - self._first, self._closed[0].shape[2] - begin)
        self._first += unneeded
        after = begin + unneeded
        columns = self._closed[0].shape[2] - unneeded + BLOCK
        for layer, old in enumerate(self._closed):
            fresh = self._closed[layer] = self._laid(-1, columns)
            fresh[:, :lanes, :begin] = old[:, :lanes, :begin]
            fresh[:, :lanes, begin:-BLOCK] = old[:, :lanes, after:]
            fresh[:, :lanes, -BLOCK:] = self._open[layer, :, :lanes]
            self._slabs[layer], self._slabs[-1] = self._slabs[-1], self._slabs[layer]
        bias = self._closed_bias
        self._closed_bias = torch.cat([bias[:, :, :begin], bias[:, :, after:], self._open_bias], -1)
        self._open_bias.fill_(-torch.inf)
        self._written = 0
        self._look()


def _runs(prefixes: Sequence[Prefix]) -> Iterator[tuple[int, Prefix, bool]]:
    """Cut prefixes into runs that can be copied at once: how many, the first, and whether they are different ones one behind the other."""
    first = 0
    while first < len(prefixes):
        one, last = prefixes[first], first + 1
        apart = last < len(prefixes) and prefixes[last] is not one
        while last < len(prefixes) and (_behind(prefixes[last - 1], prefixes[last]) if apart else prefixes[last] is one):
            last += 1
        yield last - first, one, apart and last - first > 1
        first = last


def _behind(one: Prefix, other: Prefix) -> bool:
    return other.keys[0] is one.keys[0] and other.length == one.length and other.begin == one.begin + one.length


class _View(NamedTuple):
    """What the rows that are there see of one layer: keys, transposed, and values, closed and open; and the open ones by row, to be written."""

    keys: torch.Tensor
    values: torch.Tensor
    new_keys: torch.Tensor
    new_values: torch.Tensor
    pairs: torch.Tensor
    news: torch.Tensor


def pairs(values: torch.Tensor) -> torch.Tensor:
    """Return neighbours as complex numbers, over the same memory."""
    return torch.view_as_complex(values.unflatten(-1, (-1, 2)))
