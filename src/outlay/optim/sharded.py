"""Sharded parameters (FSDP2): what a step needs of a tensor that several processes hold parts of. Plain tensors pass through unchanged.

Optimizers are built after ``fully_shard``, take the steps that one process would take, and keep the state of a process's own rows (of whole matrices
where they project them): every process saves and loads its own. Moments in few bits are rounded by the scales of those rows. What cannot be
sharded refuses when it is built.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from outlay.errors import InputError
from outlay.optim.base import by_name


def is_sharded(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is torch's DTensor."""
    return hasattr(tensor, "full_tensor")


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole tensor on every process."""
    whole: torch.Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return whole


def local_view(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor, sharing its memory."""
    part: torch.Tensor = tensor.to_local() if is_sharded(tensor) else tensor.data  # type: ignore[attr-defined]
    return part


def local_part(whole: torch.Tensor, like: Any) -> torch.Tensor:
    """Return the part of ``whole``, the same on every process, that this process holds of the sharded tensor ``like``; all of it when ``like``
    is a plain tensor."""
    if not is_sharded(like):
        return whole
    shape, offset = _extent(like)
    return whole[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]


def place_of(tensor: Any) -> tuple[int, ...]:
    """Return the index of the first element that this process holds, the same for replicas; () for a plain tensor."""
    return _extent(tensor)[1] if is_sharded(tensor) else ()


def _extent(tensor: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(shape), tuple(offset)


def unsharded(parameters: Iterable[tuple[str, nn.Parameter]], who: str, why: str) -> list[tuple[str, nn.Parameter]]:
    """Return parameters by name, for an optimizer that needs them whole.

    Raises:
        InputError: naming the optimizer and the first parameter that is sharded.
    """
    named = by_name(parameters)
    for name, parameter in named:
        if is_sharded(parameter):
            raise InputError(f"{who} does not work on sharded parameters (FSDP2), and {name} is one: {why}; take another optimizer")
    return named
