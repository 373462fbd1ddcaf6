"""The controller seam: a schedule that also listens to the run."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from outlay.branch import Branch, Landing
from outlay.record import Record
from outlay.schedules.base import Schedule


@runtime_checkable
class Controller(Schedule, Protocol):
    """A schedule with state: it reads every record and may answer differently afterwards.

    Invariants, held by ``outlay.testing.check_controller``: ``value`` changes nothing; the value depends only on the records observed, in
    order; the state is plain values, survives JSON, and continuing from it equals never having stopped.

    A controller that needs something measured which a run does not measure by itself names it in a class variable
    ``needs: ClassVar[tuple[str, ...]]``; without one it needs nothing. The measures are found among the record's metrics.
    ``descent_alignment`` is g_t . d_{t-1}, g_t the gradient of this step and d_{t-1} = (w_{t-2} - w_{t-1}) / lr_{t-1} the direction in
    which the previous update went; with plain SGD that is g_{t-1}. ``gradient_l1`` is the sum of the gradient's absolute entries.
    A step for which there is nothing to measure, such as the first, leaves them out.

    One that counts what steps are charged names the unit in an attribute or property ``counts: str``; a stage whose source spends none of it
    is refused before the run begins.
    """

    def observe(self, record: Record) -> None:
        """Take in what a step or an evaluation did and saw."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        ...


@runtime_checkable
class Brancher(Controller, Protocol):
    """A controller that looks ahead: it may ask for a branch before any step, and is told how each one ended.

    It must be its knob's schedule itself, not a part of another: on a branch the knob reads the branch's own multiplier. It observes nothing
    of its branches' steps; ``landed`` brings their records.

    Invariants: ``next_branch`` changes nothing, so that the same state names the same branch; after a branch was refused it does not ask for it
    again in the same place.
    """

    def next_branch(self, progress: float) -> Branch | None:
        """Return the branch to be taken before the next step, or None; asked before every step that is on no branch.

        Args:
            progress: share of the stage's budget that has been spent, in [0, 1].
        """
        ...

    def landed(self, branch: Branch, landing: Landing) -> None:
        """Take in how a branch ended; it was put back already, unless it is kept. One that the budget could not bear has not begun."""
        ...
