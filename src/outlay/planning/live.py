"""Live bytes: which tensors are alive at every moment of a forward and backward pass, on any device."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: (bytes of everything but gradients, bytes of gradients, bytes of gradients not yet added to their parameter)
Moment = tuple[int, int, int]


class LiveBytes(TorchDispatchMode):
    """Follows every storage that is made inside the ``with`` block, from the operation that makes it until nobody holds it.

    Counts what tensors hold. What a kernel takes and gives back inside itself is not seen, nor is the rounding of an allocator.

    Args:
        known: tensors that are not to be counted (weights and buffers).
    """

    #: attention as a higher-order operator comes here too
    supports_higher_order_operators = True

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._alive: dict[int, tuple[int, int, Any]] = {}
        # one entry an event: (number of the storage, bytes made or, negative, freed; 0 when a gradient reached its parameter)
        self._events: list[tuple[int, int]] = []
        self._made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
        return out

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._known or address in self._alive:
            return
        self._made += 1
        size = storage.nbytes()
        self._alive[address] = (self._made, size, weakref.ref(storage, partial(self._forget, address)))
        self._events.append((self._made, size))

    def _forget(self, address: int, _: Any) -> None:
        number, size, _ref = self._alive.pop(address)
        self._events.append((number, -size))

    def accumulated(self, parameter: torch.Tensor) -> None:
        """Note that the gradient of a parameter is complete; to be called by a hook after accumulation."""
        number = self._number(parameter.grad)
        if number is not None:
            self._events.append((number, 0))

    def _number(self, tensor: torch.Tensor | None) -> int | None:
        entry = self._alive.get(tensor.untyped_storage()._cdata) if tensor is not None else None
        return entry[0] if entry else None

    def bytes(self) -> int:
        """Return the bytes that are alive now."""
        return sum(size for _, size, _ in self._alive.values())

    def moments(self, gradients: Iterable[torch.Tensor | None]) -> list[Moment]:
        """Return what was alive right after every allocation, in order; only there can a peak lie.

        Args:
            gradients: the parameters' gradients after the backward pass.
        """
        ours = {self._number(gradient) for gradient in gradients}
        sizes: dict[int, int] = {}
        moments: list[Moment] = []
        other = kept = pending = 0
        for number, size in self._events:
            if number not in ours:
                other += size
            elif size == 0:
                pending -= sizes[number]
            else:
                sizes[number] = size
                kept += size
                pending += size
            if size > 0:
                moments.append((other, kept, pending))
        return moments
