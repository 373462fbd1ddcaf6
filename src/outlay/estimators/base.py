"""The estimator seam: how likely an answer to a question is right, before any is generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context

#: what an estimator reads of a question beside its arm: nothing, its text alone (free), or what the model makes of it (a forward pass, charged)
Reads = Literal["nothing", "text", "model"]


@runtime_checkable
class Estimates(Protocol):
    """An estimator that follows a run. Everything lies in [0, 1]; nothing but ``update`` and ``load_state_dict`` changes it."""

    def rates(self) -> FloatArray:
        """Return the estimated success rate of every arm, (arms,); nan where there is no ground for one."""
        ...

    def seen(self) -> FloatArray:
        """Return how many judged answers every arm's rate rests on, (arms,), >= 0; where old ones fade, what is left of them."""
        ...

    def of(self, arms: IntArray, features: FloatArray | None) -> FloatArray:
        """Return the estimated success rate of single questions, (questions,); nan where there is no ground for one.

        Args:
            arms: the arm of each, (questions,).
            features: what the estimator reads of each, (questions, width); None when it reads nothing.
        """
        ...

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Learn from what came of questions. Those of which nothing could be judged change nothing."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, as plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        ...


@runtime_checkable
class Estimator(Protocol):
    """Describes how success rates are estimated."""

    @property
    def reads(self) -> Reads:
        """What it reads of a question: the same for all questions of a run."""
        ...

    def open(self, arms: Sequence[Arm], context: Context) -> Estimates:
        """Return estimates over the arms that know nothing yet; draws of its own come from named streams of ``context.seed``."""
        ...
