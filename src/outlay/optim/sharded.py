"""Sharded parameters (FSDP2): what a step needs of a tensor that several processes hold parts of. Plain tensors pass through unchanged."""

from __future__ import annotations

from typing import Any

import torch


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
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    return whole[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]
