"""What the contract checks share."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

_UNLIKELY = 1_618_033_988


def hold(condition: bool, rule: str, seen: str) -> None:
    """Raise ``AssertionError`` with the rule and what was seen, unless the condition holds."""
    # not an assert statement: the checks must also work under python -O
    if not condition:
        raise AssertionError(f"{rule}; {seen}")


@contextmanager
def global_generators_untouched(who: str) -> Iterator[None]:
    """Hold that the block neither draws from the generators of torch, numpy and Python nor seeds them."""
    saved = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    # a state of the check's own: one that the block has left behind before would look untouched
    torch.manual_seed(_UNLIKELY)
    np.random.seed(_UNLIKELY)
    random.seed(_UNLIKELY)
    before = _states()
    try:
        yield
        hold(_states() == before, "randomness comes from named streams, never from a global generator", f"{who} moved a global generator")
    finally:
        torch.set_rng_state(saved[0])
        np.random.set_state(saved[1])
        random.setstate(saved[2])


def _states() -> tuple[bytes, bytes, int, object]:
    of_numpy = np.random.get_state(legacy=False)["state"]
    return torch.get_rng_state().numpy().tobytes(), of_numpy["key"].tobytes(), of_numpy["pos"], random.getstate()


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Say whether two sets of named tensors agree in names, types and every bit."""
    return one.keys() == other.keys() and all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)
