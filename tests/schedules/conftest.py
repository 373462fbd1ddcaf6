"""Peers: torch's and transformers' schedulers, walked step by step at a peak of 1; and no deadlines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import settings

# a busy machine is not a failure
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def walk() -> Callable[..., list[float]]:
    """Return a function that gives a scheduler's learning rates at steps 0, 1, ... steps."""

    def walked(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = make(optimizer)
        rates = [float(optimizer.param_groups[0]["lr"])]
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            rates.append(float(optimizer.param_groups[0]["lr"]))
        return rates

    return walked
