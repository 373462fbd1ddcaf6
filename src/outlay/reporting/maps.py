"""Maps of what a stage asked its model: kinds of questions down, progress across, values shaded and written into their cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from outlay.reporting.acting import OTHERS, Acting, Kind, Tally, in_order, task_of
from outlay.reporting.format import compact, percent
from outlay.reporting.tables import Cell, Row, Table

#: most kinds that have a row of their own; the others share one
MOST_ROWS = 40
#: most numbers of answers that have a row of their own; more of them share rows of 1, 2, 3-4, 5-8 ... answers
MOST_SIZES = 10
#: marks of a course in one line of text, lowest first; a part in which nothing was generated is blank
_MARKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Course:
    """One kind of questions over a stage, for a line of text: marks of its share, and numbers at the ends (None: not asked).

    Args:
        kind: its name.
        marks: a character a part of the stage.
        asked: questions.
        share: of all questions that were asked, in [0, 1].
        before, after: mean worth of the answers in the first and the last part that asked for it, in [0, 1].
    """

    kind: str
    marks: str
    asked: float
    share: float
    before: float | None
    after: float | None


def rows_of(acting: Acting) -> list[tuple[str, tuple[str, ...]]]:
    """Return the rows of a stage's maps as (label, kinds): tasks together, levels in order, the kinds that were asked least in a last row."""
    kinds = acting.whole.kinds
    known = [kind for kind in in_order({*kinds, *acting.expected}) if kind != OTHERS]
    often = sorted(known, key=lambda kind: -(kinds[kind].asked if kind in kinds else 0.0))
    shown = set(often if len(often) <= MOST_ROWS else often[: MOST_ROWS - 1])
    rows: list[tuple[str, tuple[str, ...]]] = [(kind or "no name", (kind,)) for kind in known if kind in shown]
    rest = tuple(kind for kind in [*known, *([OTHERS] if OTHERS in kinds else [])] if kind not in shown)
    if rest:
        rows.append((OTHERS if OTHERS in rest else f"{len(rest)} {OTHERS}", rest))
    return rows


def asked_map(acting: Acting) -> Table | None:
    """Share of the questions that each kind got, part by part, summing to 1 down every column; None where there are not two kinds."""
    rows = rows_of(acting)
    if len(rows) < 2 or not acting.whole.asked:
        return None
    shares = [[_share(part, kinds) for part in acting.bins] for _, kinds in rows]
    most = max((share for row in shares for share in row if share is not None), default=0.0) or 1.0
    table = []
    for begins, (label, kinds), row in zip(_begins(rows), rows, shares, strict=True):
        cells = [_percents(share, most, part) for share, part in zip(row, acting.bins, strict=True)]
        cells.append(_percents(_share(acting.whole, kinds), None, acting.whole))
        if acting.expected:
            cells.append(_percents(sum(acting.expected.get(kind, 0.0) for kind in kinds), None, None))
        table.append(Row(label, cells, begins=begins))
    parts = [*acting.bins, acting.whole]
    total = Row("questions", [Cell(compact(part.asked), part.asked) if part else Cell("") for part in parts])
    total.cells.extend([Cell("")] if acting.expected else [])
    caption = f"Asked: per cent of the questions, darkest at {percent(most)}"
    return Table(["kind", *_heads(acting), "all", *(["next"] if acting.expected else [])], table, total, caption)


def success_map(acting: Acting) -> Table | None:
    """Mean worth of the answers to each kind, part by part, each question counting once; None where no kinds are told."""
    rows = [(label, kinds) for label, kinds in rows_of(acting) if any(kind in acting.whole.kinds for kind in kinds)]
    if not rows:
        return None
    table = []
    for begins, (label, kinds) in zip(_begins(rows), rows, strict=True):
        parts = [_summed(part, kinds) for part in [*acting.bins, acting.whole]]
        shares = [kind.success / kind.asked if kind is not None and kind.asked else None for kind in parts]
        cells = [_percents(share, 1.0, kind) for share, kind in zip(shares, parts, strict=True)]
        table.append(Row(label, [*cells[:-1], _percents(shares[-1], None, None)], begins=begins))
    return Table(
        ["kind", *_heads(acting), "all"], table, caption="Success: what the answers were worth, in per cent; empty where nothing was asked"
    )


def divided_map(acting: Acting) -> Table | None:
    """Share of the questions that got so many answers, part by part, many answers on top; None where all questions got the same number."""
    if not acting.whole.uneven:
        return None
    ranges = _ranges(sorted(acting.whole.divided))
    found = [[_within(part, low, high) for part in acting.bins] for low, high in ranges]
    most = max((share for row in found for share in row if share is not None), default=0.0) or 1.0
    rows = [
        Row(
            f"{low}" if low == high else f"{low}–{high}",
            [
                *(_percents(share, most, part) for share, part in zip(row, acting.bins, strict=True)),
                _percents(_within(acting.whole, low, high), None, None),
            ],
        )
        for (low, high), row in zip(ranges, found, strict=True)
    ]
    means = [_mean_answers(part) for part in [*acting.bins, acting.whole]]
    total = Row("mean", [Cell("") if mean is None else Cell(f"{mean:.3g}", mean) for mean in means])
    caption = f"Answers to a question: per cent of the questions that got so many, darkest at {percent(most)}"
    return Table(["answers", *_heads(acting), "all"], rows[::-1], total, caption)


def signal_map(acting: Acting) -> Table | None:
    """Groups whose answers differ in worth, before and after a repair, and how many of the answers were trained on; None where not told."""
    parts = [*acting.bins, acting.whole]
    rows = []
    for name, label in (("varied", "with signal"), ("varied_after_repair", "with signal, repaired"), ("hinted", "helped by a hint")):
        if name in acting.whole.signals and (name != "hinted" or acting.whole.signal(name)):
            rows.append(_shaded(label, [part.signal(name) if part else None for part in parts]))
    for name in ("generated", "trained", "unjudged"):
        if acting.whole.counts.get(name) or (name == "trained" and name in acting.whole.counts):
            found = [part.counts.get(name, 0.0) if part else None for part in parts]
            label = {"generated": "answers", "trained": "trained on", "unjudged": "not judged"}[name]
            rows.append(
                Row(label, [Cell("") if count is None else Cell(compact(count), count) for count in found], begins=name == "generated")
            )
    if not rows:
        return None
    return Table(["groups", *_heads(acting), "all"], rows, caption="Signal: per cent of the groups whose answers differ in worth")


def use_text(acting: Acting) -> str:
    """Say in words how much was generated and how much of it could be learnt from; empty where the journal does not tell."""
    counts, whole = acting.whole.counts, acting.whole
    said = []
    generated = counts.get("generated", 0.0)
    if generated:
        trained = f", {compact(counts['trained'])} trained ({percent(counts['trained'] / generated)})" if "trained" in counts else ""
        said.append(f"{compact(generated)} answers{trained}")
    varied, repaired = whole.signal("varied"), whole.signal("varied_after_repair")
    if varied is not None:
        after = f", {percent(repaired)} after repair" if repaired is not None else ""
        said.append(f"signal in {percent(varied)} of groups{after}")
    return "; ".join(said)


def courses(acting: Acting) -> list[Course]:
    """Return the course of each kind for a terminal, in the order of the maps."""
    found = []
    rows = [(label, kinds) for label, kinds in rows_of(acting) if any(kind in acting.whole.kinds for kind in kinds)]
    shares = [[_share(part, kinds) for part in acting.bins] for _, kinds in rows]
    most = max((share for row in shares for share in row if share is not None), default=0.0) or 1.0
    for (label, kinds), row in zip(rows, shares, strict=True):
        marks = "".join(" " if share is None else _MARKS[round(share / most * (len(_MARKS) - 1))] for share in row)
        seen = [kind for part in acting.bins if (kind := _summed(part, kinds)) is not None and kind.asked]
        worth = [kind.success / kind.asked for kind in seen]
        asked = sum(kind.asked for kind in seen)
        found.append(Course(label, marks, asked, asked / acting.whole.asked, worth[0] if worth else None, worth[-1] if worth else None))
    return found


def _heads(acting: Acting) -> list[str]:
    return [f"{100 * edge:g}" for edge in acting.edges()]


def _begins(rows: Sequence[tuple[str, tuple[str, ...]]]) -> list[bool]:
    """Whether a row is the first of its task, with another task above."""
    tasks = [task_of(kinds[0]) if len(kinds) == 1 else "" for _, kinds in rows]
    return [i > 0 and task != tasks[i - 1] for i, task in enumerate(tasks)]


def _summed(part: Tally | None, kinds: Sequence[str]) -> Kind | None:
    if part is None:
        return None
    whole = Kind()
    for kind in kinds:
        whole.add(part.kinds.get(kind, Kind()))
    return whole


def _share(part: Tally | None, kinds: Sequence[str]) -> float | None:
    mine = _summed(part, kinds)
    return mine.asked / part.asked if part is not None and mine is not None and part.asked else None


def _within(part: Tally | None, low: int, high: int) -> float | None:
    whole = sum(part.divided.values()) if part is not None else 0.0
    if part is None or not whole:
        return None
    return sum(questions for answers, questions in part.divided.items() if low <= answers <= high) / whole


def _mean_answers(part: Tally | None) -> float | None:
    questions = sum(part.divided.values()) if part is not None else 0.0
    return sum(n * count for n, count in part.divided.items()) / questions if part is not None and questions else None


def _ranges(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Rows of numbers of answers, lowest first: one number each where there are few, else 0, 1, 2, 3-4, 5-8, 9-16 ..."""
    if len(sizes) <= MOST_SIZES:
        return [(size, size) for size in sizes]
    places = sorted({0 if size == 0 else (size - 1).bit_length() + 1 for size in sizes})
    return [(0, 0) if place == 0 else (2 ** (place - 2) + 1 if place > 1 else 1, 2 ** (place - 1)) for place in places]


def _shaded(label: str, shares: Sequence[float | None]) -> Row:
    return Row(label, [*(_percents(share, 1.0, None) for share in shares[:-1]), _percents(shares[-1], None, None)])


def _percents(share: float | None, most: float | None, of: Tally | Kind | None) -> Cell:
    """A cell of a map: per cent without a sign; shaded up to ``most`` unless it is None; ``of`` tells how many questions are behind it."""
    if share is None:
        return Cell("")
    value = round(share, 6)
    word = "over" if isinstance(of, Kind) else "of"
    title = f"{percent(value)} {word} {compact(of.asked)} question{'' if of.asked == 1 else 's'}" if of is not None and of.asked else ""
    return Cell(f"{100 * share:.0f}", value, heat=None if most is None else min(1.0, max(0.0, share / most)), title=title)


def maps(acting: Acting) -> list[tuple[str, Table]]:
    """Return the maps that a stage has something for, with a key each."""
    makers: dict[str, Callable[[Acting], Table | None]] = {
        "asked": asked_map, "success": success_map, "divided": divided_map, "signal": signal_map,
    }  # fmt: skip
    return [(key, table) for key, make in makers.items() if (table := make(acting)) is not None]
