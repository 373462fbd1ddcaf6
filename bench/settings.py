"""Small real settings that the demonstrations share: a classifier on digits and a causal language model on source code."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

import outlay
from outlay.objectives import Classification
from outlay.rng import numpy_generator
from outlay.sources import Batch


def digits(optimizer: Any = "adamw", **changes: Any) -> outlay.Recipe:
    """Return a recipe that trains a small perceptron on the digits; ``changes`` replace its top-level plain values."""
    plain: dict[str, Any] = {
        "name": "digits",
        "budget": "300 steps",
        "model": {"mlp": {"inputs": 64, "classes": 10, "hidden": [64], "dropout": 0.1}},
        "stages": [{
            "source": {"images": {"name": "digits"}}, "objective": "classification", "optimizer": optimizer, "batch_size": 64,
            "knobs": {"lr": {"peak": 0.003, "schedule": {"warmup": {"fraction": 0.05, "then": "rex"}}}, "clip": 1.0},
        }],
        "evaluate": {"exams": [{"held_out_loss": {"objective": "classification"}}], "every": 0.25},
        "threads": 1,
    }  # fmt: skip
    return outlay.load_recipe(plain | changes)


def language_model(budget: str, hidden: int = 64, layers: int = 2, length: int = 64, batch_size: int = 16, **changes: Any) -> outlay.Recipe:
    """Return a recipe that trains a small Llama on the standard library's source, byte by byte."""
    plain: dict[str, Any] = {
        "name": "code",
        "budget": budget,
        "model": {"transformer": {"hidden": hidden, "layers": layers, "heads": 4, "context": length, "tokenizer": "bytes"}},
        "stages": [{
            "source": {"text": {"corpus": "code", "length": length, "limit_tokens": 400_000}}, "batch_size": batch_size,
            "knobs": {"lr": {"peak": 0.003, "schedule": {"warmup": {"fraction": 0.05, "then": "rex"}}}, "clip": 1.0},
        }],
        "evaluate": {"exams": [{"held_out_loss": {"examples": 64}}]},
        "threads": 1,
    }  # fmt: skip
    return outlay.load_recipe(plain | changes)


@dataclass
class SimulatedClock:
    """A clock that only work moves on: each example takes ``seconds`` times a factor drawn from 1 +- noise for its pass."""

    seconds: float
    noise: float
    seed: int
    now: float = 0.0
    passes: int = 0

    def __call__(self) -> float:
        """Return the simulated seconds."""
        return self.now

    def work(self, examples: int) -> None:
        """Let a pass over some examples take its time."""
        factor = 1 + self.noise * (2 * numpy_generator(self.seed, "throughput", self.passes).random() - 1)
        self.passes += 1
        self.now += self.seconds * examples * factor


@dataclass
class SleepingClock(SimulatedClock):
    """The real clock, with work slowed down by really sleeping for its time."""

    def __call__(self) -> float:
        """Return the real monotonic clock."""
        return time.monotonic()

    def work(self, examples: int) -> None:
        """Sleep for the time of a pass."""
        before = self.now
        super().work(examples)
        time.sleep(self.now - before)


@dataclass(frozen=True)
class Paced:
    """Classification whose passes take time on a clock, so that throughput varies as on a shared machine."""

    knobs: ClassVar[dict[str, float]] = {}

    work: Callable[[int], None]
    inner: Classification = field(default_factory=Classification)

    def weight(self, batch: Batch) -> float:
        """Return the number of examples."""
        return self.inner.weight(batch)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the inner objective's loss after letting the pass take its time."""
        self.work(len(batch["labels"]))
        return self.inner(model, batch, knobs)
