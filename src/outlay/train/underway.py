"""Underway: a branch that is being trained, and how a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from outlay.branch import Branch
from outlay.record import Record
from outlay.train.checkpoint import Snapshot

#: what rounding may add to or take from a share of a budget
ROUNDING = 1e-9
#: before the name of a group of tensors that belongs to the fork
_FORK = "fork_"


@dataclass
class Underway:
    """A branch that has begun and not ended.

    Args:
        branch: what was asked for.
        number: of the branch within the run, from 1.
        knob: name of the knob whose controller asked.
        began: share of the stage's budget that had been spent then.
        fork: the run as it was then.
        done: steps taken on the branch.
        records: theirs, if the controller wants them.
    """

    branch: Branch
    number: int
    knob: str
    began: float
    fork: Snapshot
    done: int = 0
    records: list[Record] = field(default_factory=list)

    def position(self, progress: float) -> float:
        """Return how far the branch has come, in [0, 1], when the stage is at ``progress``."""
        if self.branch.steps is not None:
            return min(1.0, self.done / self.branch.steps)
        assert self.branch.share is not None
        return min(1.0, max(0.0, progress - self.began) / self.branch.share)

    def over(self, progress: float) -> bool:
        """Return whether the branch has its full length."""
        return self.position(progress) >= 1.0 - ROUNDING

    def multiplier(self, progress: float) -> float:
        """Return what the asking knob's peak is multiplied by."""
        return self.branch.multiplier.value(self.position(progress))

    def took(self, record: Record) -> None:
        """Count a step."""
        self.done += 1
        if self.branch.watch:
            self.records.append(replace(record, detail={}))

    def marks(self) -> dict[str, Any]:
        """Return what the journal says of the branch in each of its lines."""
        return {"branch": self.number, "name": self.branch.name}

    # ---- in a checkpoint ----------------------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, dict[str, Any]]:
        """Return the fork's tensors under names of their own."""
        return {_FORK + group: tensors for group, tensors in self.fork.tensors.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the rest as plain values. The branch is not among them: asked again at the fork, its controller names the same."""
        return {
            "number": self.number, "knob": self.knob, "began": self.began, "done": self.done, "fork": self.fork.plain,
            "records": [asdict(record) for record in self.records],
        }  # fmt: skip

    @classmethod
    def of(cls, branch: Branch, saved: Snapshot) -> Underway:
        """Return what a checkpoint holds of ``branch``."""
        state = saved.plain["branch"]
        records = [Record(**record) for record in state["records"]]
        return cls(branch, state["number"], state["knob"], state["began"], trunk_of(saved), state["done"], records)


def trunk_of(saved: Snapshot) -> Snapshot:
    """Return the run as it was when it last was on no branch: the fork, where the checkpoint was taken on a branch."""
    state: Mapping[str, Any] | None = saved.plain.get("branch")
    if state is None:
        return saved
    tensors = {group.removeprefix(_FORK): held for group, held in saved.tensors.items() if group.startswith(_FORK)}
    return Snapshot(tensors, dict(state["fork"]))
