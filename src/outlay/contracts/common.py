"""What the contract checks share."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch


def hold(condition: bool, rule: str, seen: str) -> None:
    """Raise ``AssertionError`` with the rule and what was seen, unless the condition holds."""
    # not an assert statement: the checks must also work under python -O
    if not condition:
        raise AssertionError(f"{rule}; {seen}")


@contextmanager
def global_generators_untouched(who: str) -> Iterator[None]:
    """Hold that the block draws nothing from the generators of torch, numpy and Python."""

    def states() -> tuple[bytes, bytes, int, object]:
        numpy_state = np.random.get_state(legacy=False)["state"]
        return torch.get_rng_state().numpy().tobytes(), numpy_state["key"].tobytes(), numpy_state["pos"], random.getstate()

    before = states()
    yield
    hold(states() == before, "randomness comes from named streams, never from a global generator", f"{who} moved a global generator")


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Say whether two sets of named tensors agree in names, types and every bit."""
    return one.keys() == other.keys() and all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)
