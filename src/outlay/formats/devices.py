"""Which formats a device multiplies matrices in, as torch reaches it. Any device keeps any format and computes in what it is decoded to."""

from __future__ import annotations

import torch

#: least compute capability of a CUDA device -> formats that its matrix units take from there on
CUDA: dict[tuple[int, int], frozenset[str]] = {
    (7, 0): frozenset({"fp16"}),
    (7, 5): frozenset({"int8"}),
    (8, 0): frozenset({"bf16"}),
    (8, 9): frozenset({"e4m3", "e5m2"}),
}


def computes_at(capability: tuple[int, int]) -> frozenset[str]:
    """Return the formats in which a CUDA device of a compute capability multiplies."""
    return frozenset().union(*(formats for least, formats in CUDA.items() if capability >= least))


def computes_in(device: torch.device | str) -> frozenset[str]:
    """Return the formats below single precision in which a device multiplies matrices.

    For a CPU none are named: torch takes bf16, fp16 and int8 there, and whether that is faster than single precision differs from one to the next.
    Other kinds of devices are not known and none are named.
    """
    place = torch.device(device)
    if place.type != "cuda" or torch.version.cuda is None:
        return frozenset()
    return computes_at(torch.cuda.get_device_capability(place))


def fp8_matmul_available(device: torch.device | str) -> bool:
    """Return whether ``torch._scaled_mm`` multiplies E4M3 and E5M2 on a device."""
    return {"e4m3", "e5m2"} <= computes_in(device) and hasattr(torch, "_scaled_mm")
