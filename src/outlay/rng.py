"""Named random streams: every consumer derives its own from (seed, name, counter), so the order of construction changes nothing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, name: str, counter: int = 0) -> int:
    """Return the 63-bit seed of stream ``name`` at position ``counter`` under the root ``seed``."""
    digest = hashlib.blake2b(f"{seed}\x1f{name}\x1f{counter}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def numpy_generator(seed: int, name: str, counter: int = 0) -> np.random.Generator:
    """Return a numpy generator for the stream (seed, name, counter)."""
    import numpy as np

    return np.random.default_rng(derive(seed, name, counter))


def torch_generator(seed: int, name: str, counter: int = 0) -> torch.Generator:
    """Return a CPU torch generator for the stream (seed, name, counter)."""
    import torch

    return torch.Generator().manual_seed(derive(seed, name, counter))
