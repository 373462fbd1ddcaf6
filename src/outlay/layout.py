"""Layout: what a part keeps for a tensor, said before it is kept, so that its bytes are known before a run begins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass

import torch

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A tensor that a part keeps.

    Args:
        shape: its shape.
        dtype: its type; None for that of the parameter it belongs to.
    """

    shape: Shape
    dtype: torch.dtype | None = None

    def bytes(self, element_size: int) -> int:
        """Return its bytes beside a parameter with so many bytes an element."""
        return math.prod(self.shape) * (self.dtype.itemsize if self.dtype is not None else element_size)


#: name -> what is kept under it
Layout = dict[str, Slot]


def layout_bytes(layout: Mapping[str, Slot], element_size: int) -> int:
    """Return the bytes of all slots beside a parameter with so many bytes an element."""
    return sum(slot.bytes(element_size) for slot in layout.values())


class Slots(MutableMapping[str, torch.Tensor]):
    """The tensors of one part within a parameter's state: those whose names begin with ``prefix``."""

    def __init__(self, state: MutableMapping[str, torch.Tensor], prefix: str) -> None:
        self._state, self._prefix = state, prefix

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._state[self._prefix + name]

    def __setitem__(self, name: str, value: torch.Tensor) -> None:
        self._state[self._prefix + name] = value

    def __delitem__(self, name: str) -> None:
        del self._state[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return iter([name.removeprefix(self._prefix) for name in self._state if name.startswith(self._prefix)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def fill(self, layout: Mapping[str, Slot], like: torch.Tensor) -> None:
        """Replace everything by zeros in the shapes of a layout, on the device and by default in the type of ``like``."""
        for name in list(self):
            del self[name]
        for name, slot in layout.items():
            self[name] = torch.zeros(slot.shape, dtype=slot.dtype or like.dtype, device=like.device)


#: what a part keeps, by name
State = MutableMapping[str, torch.Tensor]
