"""Branch: a fork of a run that looks ahead and goes back, charged to the same budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from outlay.errors import InputError
from outlay.record import Record
from outlay.schedules.base import Schedule
from outlay.schedules.constant import Constant

#: how a branch ended: at its full length; cut off because the budget bore no further step of it, or not begun for that reason; or at a step
#: whose loss or gradient was not finite
End = Literal["whole", "cut", "refused", "diverged"]


@dataclass(frozen=True)
class Branch:
    """Train on from here for a while, then put the run back as it was, bit for bit; unless the branch is kept.

    While it lasts, the knob whose controller asked for it reads ``multiplier`` instead of that controller; every other part goes on as it would.
    Put back are weights, optimizer, every controller but the one that asked, the random streams, and the cursor where ``rewind_data`` says so.
    What the branch used stays spent.

    Args:
        name: what the journal calls it; also the directory of what is saved.
        multiplier: of the asking knob's peak, read on the branch's own progress, from 0 at its first step towards 1 at its end.
        steps: length in updates, >= 1; or
        share: length as a share of the stage's budget, in (0, 1). Just one of the two is given.
        leaves: what the stage must still be able to pay when the branch has ended, in the unit of its length, >= 0; otherwise it is not begun.
        account: where its steps are charged.
        keep: go on from the branch's end instead of putting the run back. A branch that was cut or diverged is put back all the same.
        rewind_data: read the same examples again after it; False goes on behind those that it read.
        evaluate: run the exams at its end, if the budget bears it beside the last evaluation.
        save: write its end as model weights to ``branches/<name>/`` in the run's directory.
        watch: whether the controller that asked wants the records of its steps.
    """

    name: str
    multiplier: Schedule = field(default_factory=Constant)
    steps: int | None = None
    share: float | None = None
    leaves: float = 0.0
    account: str = "probe"
    keep: bool = False
    rewind_data: bool = True
    evaluate: bool = False
    save: bool = False
    watch: bool = True

    def __post_init__(self) -> None:
        if not self.name or any(sign in self.name for sign in "/\\\0") or self.name.startswith("."):
            raise InputError(f"a branch's name must not be empty, start with '.' or hold '/', found {self.name!r}")
        if (self.steps is None) == (self.share is None):
            raise InputError(f"a branch has a length in steps or as a share of the budget, found {self.steps} steps and share {self.share}")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"a branch takes at least one step, found {self.steps}")
        if self.share is not None and not 0 < self.share < 1:
            raise InputError(f"a branch's share of the budget must lie in (0, 1), found {self.share}")
        if not 0 <= self.leaves < math.inf:
            raise InputError(f"what a branch leaves must be finite and >= 0, found {self.leaves}")


@dataclass(frozen=True)
class Landing:
    """What a controller is told of a branch that it asked for.

    Args:
        end: how the branch ended.
        began: share of the stage's budget that had been spent when it was asked for, in [0, 1].
        ended: the same when it ended, before it was evaluated and saved.
        records: its steps', in order, if ``watch``; the last one of a diverged branch is the step that was skipped.
        metrics: what the exams found, if ``evaluate`` and the budget bore it; else empty.
    """

    end: End
    began: float
    ended: float
    records: tuple[Record, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
