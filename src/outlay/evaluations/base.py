"""The evaluation seam: what is measured on held-out data, charged like everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import nn

from outlay.context import Context
from outlay.sources.base import Batch, Source

#: called once a batch: ``charge(batch, new_tokens)`` books its examples, tokens, forward FLOPs and generated tokens
ChargeBatch = Callable[[Batch, float], None]


@runtime_checkable
class Sitting(Protocol):
    """An exam opened for one model: the same questions every time it is run."""

    def bound(self) -> dict[str, float]:
        """Return the most that one run can charge: ``examples``, ``tokens``, ``positions`` (padding included), ``new_tokens``."""
        ...

    def run(self, model: nn.Module, charge: ChargeBatch) -> dict[str, float]:
        """Return the metrics of a model in evaluation mode, without gradients."""
        ...


@runtime_checkable
class Exam(Protocol):
    """Describes a measurement on held-out data."""

    def open(self, context: Context, source: Source) -> Sitting:
        """Return the exam's questions; ``source`` is the last stage's, for exams that ask about its held-out part."""
        ...
