"""Shared prompts: keys and values of a prompt kept once for all the rows that go on from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from outlay.rollout.passes import Prefix

if TYPE_CHECKING:
    from outlay.rollout.columns import Room


class SharedPrompts:
    """Prompts kept once, a prompt's keys and values (heads, longest, width) a layer; rows know which is theirs.

    For the product with a prompt all its rows' queries are brought together, padded to the prompt that most rows share: one matrix product reads
    the prompt once. A (place, head) is a lane, as in ``Columns``.

    Args:
        room: where buffers come from.
        layers: of the model.
        groups: different prompts at once at most.
        heads: of keys in a layer.
        longest: tokens of a prompt at most.
        like: a tensor of the dtype and on the device; its last dimension is the width of a head.
    """

    def __init__(self, room: Room, layers: int, groups: int, heads: int, longest: int, like: torch.Tensor) -> None:
        self._heads, self._device = heads, like.device
        self._keys, self._values = (room.take(name, (layers, groups * heads, longest, like.shape[-1]), like) for name in ("keys", "values"))
        self._bias = torch.empty(groups * heads, 1, longest, dtype=like.dtype, device=like.device)
        #: the prompts that are kept, in their places, and each row's
        self._kept: list[Prefix] = []
        self._own: list[Prefix] = []

    def seat(self, first: int, prefixes: Sequence[Prefix]) -> None:
        """Let rows that go on from these prefixes sit in the places from ``first`` on."""
        self._own[first:] = prefixes
        self._drop()
        known = {id(prefix) for prefix in self._kept}
        for prefix in prefixes:
            if id(prefix) not in known:
                known.add(id(prefix))
                lanes = self._lanes(len(self._kept))
                self._kept.append(prefix)
                for kept, own in ((self._keys, prefix.keys[0]), (self._values, prefix.values[0])):
                    kept[:, lanes, : prefix.length] = own[:, :, prefix.begin : prefix.begin + prefix.length]
                    kept[:, lanes, prefix.length :] = 0  # hidden, and 0 times whatever lies there must be 0
                self._bias[lanes, :, : prefix.length] = 0
                self._bias[lanes, :, prefix.length :] = -torch.inf
        self._arrange()

    def close_up(self, to: Sequence[int], source: Sequence[int], left: int) -> None:
        """Let the rows in the places ``source`` sit in the places ``to``; the first ``left`` places remain."""
        for new, old in zip(to, source, strict=True):
            self._own[new] = self._own[old]
        del self._own[left:]
        self._drop()
        self._arrange()

    def _drop(self) -> None:
        """Forget the prompts that no row needs."""
        needed = {id(prefix) for prefix in self._own}
        for place in reversed(range(len(self._kept))):
            if id(self._kept[place]) not in needed:
                last = len(self._kept) - 1
                if place != last:
                    for kept in (self._keys, self._values):
                        kept[:, self._lanes(place)] = kept[:, self._lanes(last)]
                    self._bias[self._lanes(place)] = self._bias[self._lanes(last)]
                    self._kept[place] = self._kept[last]
                del self._kept[last]

    def _lanes(self, place: int) -> slice:
        return slice(place * self._heads, (place + 1) * self._heads)

    def _arrange(self) -> None:
        """Work out where every row's lanes stand among its group's: (group, head, row of the group)."""
        number = {id(prefix): place for place, prefix in enumerate(self._kept)}
        groups = [number[id(prefix)] for prefix in self._own]
        seen: Counter[int] = Counter()
        within = []
        for group in groups:
            within.append(seen[group])
            seen[group] += 1
        self._most = max(seen.values(), default=0)
        lanes = torch.tensor(groups, dtype=torch.long)[:, None] * self._heads + torch.arange(self._heads)
        to = (lanes * self._most + torch.tensor(within, dtype=torch.long)[:, None]).flatten()
        fetch = torch.zeros(len(self._kept) * self._heads * self._most, dtype=torch.long)
        fetch[to] = torch.arange(len(to))
        self._to, self._from = to.to(self._device), fetch.to(self._device)
        lengths = {prefix.length for prefix in self._kept}
        self._longest, self._uneven = max(lengths, default=0), len(lengths) > 1

    def scores(self, layer: int, queries: torch.Tensor) -> torch.Tensor:
        """Return the scores of the rows' queries (lanes, queries of a lane, width) against their prompts, (lanes, queries of a lane, longest)."""
        together = len(self._kept) * self._heads
        gathered = queries.index_select(0, self._from).view(together, -1, queries.shape[2])
        keys = self._keys[layer, :together, : self._longest].mT
        found = torch.baddbmm(self._bias[:together, :, : self._longest], gathered, keys) if self._uneven else torch.bmm(gathered, keys)
        return found.view(together * self._most, -1, self._longest).index_select(0, self._to)

    def values(self, layer: int, chances: torch.Tensor) -> torch.Tensor:
        """Return the prompts' values weighed by ``chances``, of the shape of the queries."""
        together = len(self._kept) * self._heads
        gathered = chances.index_select(0, self._from).view(together, -1, self._longest)
        found = torch.bmm(gathered, self._values[layer, :together, : self._longest])
        return found.view(together * self._most, -1, found.shape[2]).index_select(0, self._to)
