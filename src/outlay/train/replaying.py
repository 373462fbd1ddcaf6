"""Replaying: the pace of a run that is repeated from its journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from outlay.branch import Branch
from outlay.train.pace import Go


class RecordedPace:
    """The pace of a replay: the progress that the journal recorded, step by step and turn by turn.

    Args:
        lines: the stage's lines of kind ``step``, ``branch_step`` and ``branch``, in order.
        saves: where the run was saved, since a roll-back depends on it: number of the step before, and of the branch it was on or None.
        evaluations: number of the step after which the model was evaluated -> the progress at which; controllers may answer to it.
        branch_evaluations: numbers of the steps after which a branch was evaluated at its end.
        ended_by: what ended the stage.
        cuts: generations that the budget cut off: number of their first question -> pieces that were done.
    """

    def __init__(self, lines: Iterable[Mapping[str, Any]], saves: Iterable[tuple[int, int | None]], evaluations: Mapping[int, float],
                 branch_evaluations: Iterable[int], ended_by: str | None, cuts: Mapping[int, int] | None = None) -> None:  # fmt: skip
        self._cuts = dict(cuts or {})
        self._lines = deque(lines)
        self._saves = set(saves)
        self._evaluations = dict(evaluations)
        self._branch_evaluations = set(branch_evaluations)
        first: Mapping[str, Any] = self._lines[0] if self._lines else {"step": 0, "kind": "branch"}
        self._done = int(first["step"]) - (first["kind"] != "branch")
        self._branch: int | None = None
        self.ended_by = ended_by

    @property
    def progress(self) -> float:
        """Progress of what comes next; 1 after the last."""
        return float(self._lines[0]["progress"]) if self._lines else 1.0

    def begin(self, save: bool, stop: bool, paid: Collection[str] = ()) -> Go | None:
        """Return leave for the next recorded step, the same one until it is done; a signal still stops a replay. Before a branch that was cut is
        put back, there is none. An evaluation between two steps comes first, at the progress at which it was made."""
        examined = self._evaluations.get(self._done) if self._branch is None else None
        if examined is not None:
            saved = (self._done, None) in self._saves
            self._saves.discard((self._done, None))
            return Go(examined, save=saved, stop=stop)
        if not self._lines:
            return None
        line = self._lines[0]
        turn = line["kind"] == "branch"
        here = (line["step"] if turn else line["step"] - 1, self._branch)
        saved = here in self._saves
        self._saves.discard(here)  # asked again after the save
        if turn and line.get("end") == "cut" and not saved:
            return None
        return Go(line["progress"], save=saved, stop=stop)

    def fits(self, cost: Mapping[str, float]) -> bool:
        """A recorded step fitted."""
        return True

    def leaves(self, cost: Mapping[str, float], seconds: float, place: int, call: int) -> bool:
        """Return whether the recorded generation had this piece."""
        return call < self._cuts.get(place, call + 1)

    def bears(self, branch: Branch, cost: Mapping[str, float]) -> bool:
        """Return whether a branch was begun here."""
        return bool(self._lines) and self._lines[0].get("what") == "begun"

    def turned(self) -> None:
        """Go on to what came after the turn."""
        line = self._lines.popleft()
        self._branch = line["branch"] if line["what"] == "begun" else None

    def expect(self, seconds: float) -> None:
        """A replay needs no forecast."""

    def evaluates(self) -> bool:
        """Return whether the model was evaluated after the step that was done last, or the branch that has come to its end was."""
        if self._branch is not None:
            return self._done in self._branch_evaluations
        return self._evaluations.pop(self._done, None) is not None

    def lap(self) -> None:
        """Go on to what came after the step."""
        self._done = self._lines.popleft()["step"]

    def seconds_left(self) -> float | None:
        """A replay does not know."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """A replay is not resumed."""
        return {}
