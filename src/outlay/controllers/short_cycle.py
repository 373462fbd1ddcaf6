"""Multigrid's short cycle: another shape with every mini-batch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from outlay.catalog import Paper
from outlay.record import Record
from outlay.schedules.base import Schedule, require
from outlay.schedules.constant import Constant


@dataclass
class _State:
    steps: int = 0


@dataclass
class ShortCycle:
    """Cycle through sizes from one mini-batch to the next: each factor in turn, then the long cycle's own size.

    With S the long cycle's size and B its batch, both multipliers, update number k of the stage (from 0) has, for n factors,

        size  s = min(factors[k mod (n + 1)], S), or S itself in the last place of the cycle
        batch b = B round((S / s)^power)

    so that batch x size^power stays constant up to rounding: the batch's multipliers are 4, 2, 1 at full size. It counts updates, which a
    schedule cannot see, and starts with the smallest size and the largest batch. Give the knobs of batch and size an instance each, alike
    but for ``reads``. A factor above S is taken as S; the paper's never are. The learning rate follows the long cycle's batch alone.

    Args:
        reads: which multiplier this is.
        size: the long cycle's size: its ``space`` (or, for text, ``time``); the full size by default.
        batch: the long cycle's batch; 1 by default.
        factors: sizes relative to the full one, in (0, 1], at least one.
        power: how the cost of an example grows with its size, > 0: 2 for pixels a side, 1 for tokens.
    """

    title: ClassVar[str] = "Multigrid short cycle"
    paper: ClassVar[Paper | None] = Paper("1912.00998", "A Multigrid Method for Efficiently Training Video Models", 2019)

    reads: Literal["batch", "size"] = "batch"
    size: Schedule = field(default_factory=Constant)
    batch: Schedule = field(default_factory=Constant)
    factors: tuple[float, ...] = (0.5, 0.5**0.5)
    power: float = 2.0
    _state: _State = field(default_factory=_State, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.reads in ("batch", "size"), f"reads must be batch or size, found {self.reads!r}")
        require(len(self.factors) >= 1, "factors must hold at least one size, found none")
        require(all(0 < factor <= 1 for factor in self.factors), f"every factor must lie in (0, 1], found {self.factors}")
        require(self.power > 0, f"power must be > 0, found {self.power}")

    def value(self, progress: float) -> float:
        """Return the multiplier of the next update, the long cycle being at ``progress`` in [0, 1]."""
        full = self.size.value(progress)
        place = self._state.steps % (len(self.factors) + 1)
        size = min(self.factors[place], full) if place < len(self.factors) else full
        return size if self.reads == "size" else self.batch.value(progress) * round((full / size) ** self.power)

    def observe(self, record: Record) -> None:
        """Count an update."""
        if record.kind == "step":
            self._state.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return how many updates were seen."""
        return asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._state = _State(**state)
