"""Devices: how many FLOPs a second a device gives, measured by a short matrix product."""

from __future__ import annotations

import time

import torch

#: share of a large matrix product's rate that a training step of a small or middling model reaches; our assumption, for the formula alone
UTILISATION = 0.4


def measured_flops(device: torch.device | str, dtype: torch.dtype = torch.float32, seconds: float = 0.15) -> float:
    """Return the FLOPs a second of square matrix products on a device, the best of those that fit into ``seconds``."""
    width = 1024 if torch.device(device).type == "cpu" else 8192
    left, right = torch.zeros(width, width, device=device, dtype=dtype), torch.zeros(width, width, device=device, dtype=dtype)
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until or best == 0.0:
        began = time.perf_counter()
        left @ right
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2.0 * width**3 / (time.perf_counter() - began))
    return best


def expected_step_seconds(flops: float, device: torch.device | str, dtype: torch.dtype = torch.float32) -> float:
    """Return the seconds of a training step of so many FLOPs by formula: flops / (utilisation * measured rate)."""
    return flops / (UTILISATION * measured_flops(device, dtype))
