"""Adding up what a run asked its model, and what came of it, over the progress of each stage: bounded however long the run was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from outlay.reporting.values import finite, finite_number

#: equal parts that a stage's progress is cut into while a journal is read
BINS = 20
#: most kinds of questions that are told apart; what came later than these is added up under ``OTHERS``
MOST_KINDS = 400
OTHERS = "other kinds"
#: parts that a resumption can go back into; those that are older are added up
MOST_PIECES = 512


@dataclass
class Kind:
    """What was asked of one kind of questions: how often, how many answers, and two sums over the questions.

    Args:
        asked: questions.
        answers: answers to them.
        success: sum over the questions of the mean worth of their answers, each in [0, 1].
        varied: questions whose answers differed in worth.
    """

    asked: float = 0.0
    answers: float = 0.0
    success: float = 0.0
    varied: float = 0.0

    def add(self, other: Kind) -> None:
        """Add another count of the same kind."""
        self.asked += other.asked
        self.answers += other.answers
        self.success += other.success
        self.varied += other.varied


@dataclass
class Tally:
    """What was generated in a part of a stage.

    Args:
        generations: how often the stage acted.
        questions: that were asked.
        kinds: by kind of question; empty where the journal does not tell.
        divided: answers to a question -> how many questions got so many.
        uneven: generations in which not every question got the same number of answers.
        counts: ``generated``, ``trained``, ``unjudged``: answers; absent where the journal does not tell.
        signals: ``varied``, ``varied_after_repair`` and ``hinted`` -> (sum of weight times share, sum of weights).
    """

    generations: int = 0
    questions: float = 0.0
    kinds: dict[str, Kind] = field(default_factory=dict)
    divided: dict[int, float] = field(default_factory=dict)
    uneven: int = 0
    counts: dict[str, float] = field(default_factory=dict)
    signals: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def asked(self) -> float:
        """Questions whose kind is known."""
        return sum(kind.asked for kind in self.kinds.values())

    def signal(self, name: str) -> float | None:
        """Return the mean share of a name in ``signals``, in [0, 1]; None when nothing was seen."""
        total, weight = self.signals.get(name, (0.0, 0.0))
        return total / weight if weight > 0 else None

    def add(self, other: Tally) -> None:
        """Add another part of the same stage."""
        self.generations += other.generations
        self.questions += other.questions
        self.uneven += other.uneven
        for name, kind in other.kinds.items():
            self.kinds.setdefault(name, Kind()).add(kind)
        for answers, questions in other.divided.items():
            self.divided[answers] = self.divided.get(answers, 0.0) + questions
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0.0) + count
        for name, (total, weight) in other.signals.items():
            mine = self.signals.get(name, (0.0, 0.0))
            self.signals[name] = mine[0] + total, mine[1] + weight


@dataclass(frozen=True)
class Acting:
    """What one stage generated.

    Args:
        stage: its name.
        bins: equal parts of its progress, in order; None where nothing was generated.
        whole: all parts together.
        expected: kind -> share of the next questions that the teacher expected after the last generation; empty without one.
    """

    stage: str
    bins: tuple[Tally | None, ...]
    whole: Tally
    expected: Mapping[str, float]

    def edges(self) -> list[float]:
        """Return the progress at which each part begins, in [0, 1)."""
        return [i / len(self.bins) for i in range(len(self.bins))]


@dataclass
class _Piece:
    """Generations of one part of a stage with no checkpoint between them; ``first``: number of the first line."""

    first: int
    stage: str
    bin: int
    tally: Tally
    expected: dict[str, float]


class ActingFold:
    """Adds up the lines of kind ``rollout``.

    A resumption takes back what came after a checkpoint. So that this is exact with bounded memory, generations are added up in pieces that end
    at checkpoints, and whole pieces are dropped.
    """

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._open = False
        self._kinds: set[str] = set()
        self._turns: list[tuple[int, bool]] = []

    def take(self, line: Mapping[str, Any], stage: str, progress: float) -> None:
        """Add a line of kind ``rollout``; what was generated on a branch is no part of the stage's course.

        Args:
            line: it.
            stage: whose it is.
            progress: of that stage, in [0, 1], for journals whose line does not tell it.
        """
        if self._turns and self._turns[-1][1]:
            return
        told = finite_number(line.get("progress"))
        at = progress if told is None else told
        place = min(BINS - 1, max(0, int(at * BINS + 1e-9)))
        last = self._pieces[-1] if self._pieces and self._open else None
        if last is None or (last.stage, last.bin) != (stage, place):
            last = _Piece(int(line.get("n") or 0), stage, place, Tally(), {})
            self._pieces.append(last)
            self._open = True
            if len(self._pieces) > MOST_PIECES:
                half = MOST_PIECES // 2
                self._pieces = [*_together(self._pieces[:half]), *self._pieces[half:]]
        last.tally.add(self._read(line))
        last.expected = _numbers(line.get("shares")) or last.expected

    def checkpoint(self) -> None:
        """Note that a resumption may go back to here."""
        self._open = False

    def branch(self, line: Mapping[str, Any]) -> None:
        """Note that a branch begins or ends."""
        if line.get("what") in ("begun", "landed"):
            self._turns.append((int(line.get("n") or 0), line.get("what") == "begun"))

    def undo(self, first_undone: float) -> None:
        """Take back the lines from number ``first_undone`` on."""
        self._open = False
        self._pieces = [piece for piece in self._pieces if piece.first < first_undone]
        self._turns = [turn for turn in self._turns if turn[0] < first_undone]

    def finished(self) -> tuple[Acting, ...]:
        """Return what each stage generated, in the order in which they began to."""
        stages = dict.fromkeys(piece.stage for piece in self._pieces)
        return tuple(_acting(stage, [piece for piece in self._pieces if piece.stage == stage]) for stage in stages)

    def _read(self, line: Mapping[str, Any]) -> Tally:
        kinds: dict[str, Kind] = {}
        for name, said in _mapping(line.get("kinds")).items():
            kind = self._kind(said)
            if kind.asked > 0:
                kinds.setdefault(self._known(str(name)), Kind()).add(kind)
        divided = {int(answers): count for answers, count in _numbers(line.get("divided")).items() if answers.isdecimal() and count > 0}
        seen = _numbers(line.get("seen"))
        questions = max(0.0, finite_number(line.get("questions")) or 0.0) or sum(kind.asked for kind in kinds.values())
        counts = {name: seen[key] for name, key in _COUNTS.items() if key in seen}
        # shares of all groups weigh as many groups as there were; of those kept only their answers are journaled
        weights = {"varied": sum(divided.values()) if "divided" in line else questions, "varied_after_repair": counts.get("trained", 0.0)}
        weights["hinted"] = weights["varied_after_repair"]
        signals = {name: (seen[name] * weight, weight) for name, weight in weights.items() if name in seen}
        return Tally(1, questions, kinds, divided, int(len(divided) > 1), counts, signals)

    @staticmethod
    def _kind(said: Any) -> Kind:
        asked, answers, success, varied = (
            (finite_number(said.get(name)) or 0.0 for name in _OF_KIND) if isinstance(said, Mapping) else (0.0,) * 4
        )
        return Kind(asked, answers, asked * success, asked * varied)

    def _known(self, name: str) -> str:
        if name not in self._kinds and len(self._kinds) >= MOST_KINDS:
            return OTHERS
        self._kinds.add(name)
        return name


_OF_KIND = ("asked", "answers", "success", "varied")
_COUNTS = {"generated": "rollouts_generated", "trained": "rollouts_trained", "unjudged": "unjudged"}


def _together(pieces: Iterable[_Piece]) -> list[_Piece]:
    """Add up the pieces of the same part of the same stage."""
    found: dict[tuple[str, int], _Piece] = {}
    for piece in pieces:
        mine = found.setdefault((piece.stage, piece.bin), _Piece(piece.first, piece.stage, piece.bin, Tally(), {}))
        mine.tally.add(piece.tally)
        mine.expected = piece.expected or mine.expected
    return list(found.values())


def _acting(stage: str, pieces: list[_Piece]) -> Acting:
    whole = Tally()
    expected: Mapping[str, float] = {}
    bins: list[Tally | None] = [None] * BINS
    for piece in pieces:
        whole.add(piece.tally)
        expected = piece.expected or expected
        bins[piece.bin] = merged([bins[piece.bin], piece.tally])
    return Acting(stage, tuple(coarser(bins)), whole, expected)


def coarser(bins: list[Tally | None]) -> list[Tally | None]:
    """Add neighbours up, so that a short run has wide parts and not gaps.

    There are no more parts than generations, and from the first part that holds something to the last at least three of four do. The number of
    parts divides that of ``bins``, so that all are equally wide.
    """
    generations = sum(one.generations for one in bins if one is not None)
    for width in range(1, len(bins) + 1):
        if len(bins) % width or len(bins) // width > max(1, generations):
            continue
        wider = [merged(bins[at : at + width]) for at in range(0, len(bins), width)]
        held = [i for i, one in enumerate(wider) if one is not None]
        if not held or len(held) >= 0.75 * (held[-1] - held[0] + 1):
            return wider
    return bins


def merged(parts: Iterable[Tally | None]) -> Tally | None:
    """Return the parts added up as a new tally; None when all of them are."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    whole = Tally()
    for part in found:
        whole.add(part)
    return whole


def task_of(kind: str) -> str:
    """Return the task of a kind such as ``gcd/2``: all before the last slash, or the kind itself."""
    return kind.rpartition("/")[0] or kind


def in_order(kinds: Iterable[str]) -> list[str]:
    """Order kinds so that those of one task lie together, levels by their numbers (``gcd/2`` before ``gcd/10``)."""
    return sorted(kinds, key=lambda kind: (task_of(kind), _natural(kind), kind))


def _natural(text: str) -> list[tuple[int, str]]:
    pieces = re.split(r"([0-9]+)", text)  # numbers are at the odd places
    return [(int(piece), "") if i % 2 else (0, piece) for i, piece in enumerate(pieces)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(value: Any) -> dict[str, float]:
    return finite(_mapping(value))
