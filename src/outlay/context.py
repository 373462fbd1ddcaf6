"""Context: what a part may know about the run in which it is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Context:
    """Handed to sources, exams and models when a run opens them.

    Args:
        seed: the run's root seed; derive streams from it with ``outlay.rng``.
        tokenizer: the model's tokenizer (transformers' interface), or None for a model that reads no text.
        device: where batches must be put, a ``torch.device`` or its name.
        rank: number of this process, 0-based.
        world: how many processes share the run.
    """

    seed: int
    tokenizer: Any = None
    device: Any = "cpu"
    rank: int = 0
    world: int = 1


def cache_directory() -> Path:
    """Return the folder for downloaded data and converted models: ``$OUTLAY_CACHE`` or ``~/.cache/outlay``."""
    return Path(os.environ.get("OUTLAY_CACHE") or Path.home() / ".cache" / "outlay")
