"""Read a run directory: what a run was given, what it did, and what every unit of its budget was spent on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outlay.errors import InputError
from outlay.reporting.acting import Acting
from outlay.reporting.fold import Books, Evaluation, Event, Fold, Steps
from outlay.reporting.values import finite

#: the newest journal format this module reads
FORMAT = 1


@dataclass(frozen=True)
class RunRecord:
    """A run as its directory tells it. Sums come from the journal; ``result`` is None for a run that has not ended.

    Args:
        path: the run directory.
        head: the journal's first line (recipe, limits, seed, versions, device ...).
        recipe_text: the resolved recipe as YAML.
        plan: the plan made before spending, if one was made.
        result: what ``result.json`` says, if the run has ended.
        steps, evaluations, events: what happened, in order.
        accounts: account -> unit -> spent; ``by_stage``: stage -> account -> unit -> spent; both sum to ``spent``, unit by unit.
        spent: unit -> amount; money follows from its price.
        after_last_step: unit -> amount spent after the last step (closing evaluation, checkpoint, report).
        lost: unit -> amount of work a kill threw away. Its seconds are also in ``accounts["lost"]``.
        notes: what could not be read or does not add up.
        acting: what each stage that acted asked its model, and what came of it.
    """

    path: Path
    head: Mapping[str, Any]
    recipe_text: str
    plan: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    steps: Steps
    evaluations: tuple[Evaluation, ...]
    events: tuple[Event, ...]
    accounts: Books
    by_stage: dict[str, Books]
    spent: dict[str, float]
    after_last_step: dict[str, float]
    lost: dict[str, float]
    notes: tuple[str, ...]
    acting: tuple[Acting, ...] = ()

    @property
    def name(self) -> str:
        """The run's name; the directory's where the journal has none."""
        return str(self.head.get("name") or self.path.name)

    @property
    def limits(self) -> dict[str, float]:
        """Unit -> amount that might be spent."""
        return dict(self.head.get("limits") or {})

    @property
    def ceilings(self) -> dict[str, float]:
        """``memory`` in bytes and ``params``, where limited."""
        return dict(self.head.get("ceilings") or {})

    @property
    def ended_by(self) -> str | None:
        """What ended the run (a unit, ``signal``, ``data``, ``failure``); None while it runs or when it was killed."""
        turns = [event for event in self.events if event.kind in ("end", "resume")]
        if turns:
            return turns[-1].line.get("ended_by")
        return (self.result or {}).get("ended_by")

    @property
    def metrics_start(self) -> dict[str, float]:
        """The evaluation made before training."""
        return self._metrics("metrics_start", "start")

    @property
    def metrics_end(self) -> dict[str, float]:
        """The final evaluation; of a run that has not ended the latest one after the start."""
        final = self._metrics("metrics", "end")
        later = [one for one in self.evaluations if one.when != "start"]
        if self.evaluations and not later:
            return {}  # a run that was stopped before it was measured again
        return final or (finite(later[-1].metrics) if later else {})

    def _metrics(self, key: str, when: str) -> dict[str, float]:
        said = finite((self.result or {}).get(key) or {})
        seen = [one for one in self.evaluations if one.when == when]
        return said or (finite(seen[-1].metrics) if seen else {})

    @property
    def decisions(self) -> list[tuple[str, str]]:
        """What was decided and why, in order."""
        return [(str(event.line.get("what", "")), str(event.line.get("why", ""))) for event in self.of("decision")]

    @property
    def warnings(self) -> list[str]:
        """The run's warnings, in order, each once."""
        journaled = [str(event.line.get("message", "")) for event in self.of("warning")]
        return list(dict.fromkeys([*journaled, *map(str, (self.result or {}).get("warnings") or [])]))

    @property
    def stages(self) -> list[Event]:
        """Where each stage began, in order; beginnings that a kill undid are left out."""
        resumed = [event.line for event in self.of("resume")]
        begun: dict[str, Event] = {}
        for event in self.of("stage"):
            n = event.line.get("n", 0)
            if not any(line.get("from_line", math.inf) <= n < line.get("n", 0) for line in resumed):
                begun.setdefault(str(event.line.get("stage")), event)
        return list(begun.values())

    def of(self, kind: str) -> list[Event]:
        """Return the events of one kind: ``stage``, ``checkpoint``, ``decision``, ``warning``, ``resume``, ``end``."""
        return [event for event in self.events if event.kind == kind]


def read_run(path: Path | str) -> RunRecord:
    """Read a run directory; one of a run that has not ended, or was killed while it wrote a line, is read as far as it goes.

    Raises:
        InputError: when there is no run in ``path``, or its journal is of a newer format.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a run directory: there is no such folder; give the folder a run was written to")
    journal = folder / "journal.jsonl"
    if not journal.is_file():
        raise InputError(f"{folder} is not a run directory: it has no journal.jsonl; give the folder a run was written to")
    notes: list[str] = []
    lines = _lines(journal, notes)
    head = next(lines, None)
    if head is None or head.get("kind") != "run":
        found = "nothing readable" if head is None else f"a line of kind {head.get('kind')!r}"
        raise InputError(f"{journal} does not begin with a line of kind 'run' (found {found}): the run never began, or this is no run")
    version = head.get("format", FORMAT)
    if not isinstance(version, int) or version > FORMAT:
        raise InputError(f"{journal} has format {version!r}, this version of outlay reads up to {FORMAT}; upgrade outlay to read it")
    result = _json(folder / "result.json", notes)
    fold = Fold(head)
    fold.take(head)
    for line in lines:
        fold.take(line)
    turns = [event.kind for event in fold.events if event.kind in ("end", "resume")]
    if turns and turns[-1] == "resume":
        result = None  # it tells of a stop from which the run was resumed
    plan = _json(folder / "plan.json", notes) or fold.plan or (result or {}).get("plan")
    recipe = folder / "recipe.yaml"
    text = recipe.read_text("utf-8", errors="replace") if recipe.is_file() else json.dumps(head.get("recipe", {}), indent=2)
    spent = fold.totals()
    notes.extend(_disagreements(spent, result))
    lost = finite((result or {}).get("lost") or {}) or fold.lost()
    steps = fold.finished_steps()
    after = {unit: amount - (steps.spent[unit][-1] if unit in steps.spent else 0.0) for unit, amount in spent.items()} if len(steps) else {}
    return RunRecord(
        path=folder,
        head=head,
        recipe_text=text,
        plan=plan,
        result=result,
        steps=steps,
        evaluations=tuple(fold.evaluations),
        events=tuple(fold.events),
        accounts=fold.books(),
        by_stage=fold.stages(),
        spent=spent,
        after_last_step=after,
        lost={unit: amount for unit, amount in lost.items() if amount},
        notes=tuple(notes),
        acting=fold.acting.finished(),
    )


def _lines(journal: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the readable lines; a torn one at the end or before a resumption is what a kill leaves, any other is noted."""
    unreadable: list[int] = []
    torn = 0
    with journal.open("rb") as stream:
        for count, raw in enumerate(stream, 1):
            try:
                line = json.loads(raw)
            except ValueError:
                line = None
            if not isinstance(line, dict):
                torn = count if raw.strip() else torn
                continue
            if torn and line.get("kind") not in {"resume", "run"}:
                unreadable.append(torn)
            torn = 0
            yield line
    if unreadable:
        where = f"{len(unreadable)} unreadable line(s), the first is line {unreadable[0]}"
        notes.append(f"journal.jsonl: {where}; their charges are missing from the sums")


def _json(path: Path, notes: list[str]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    notes.append(f"{path.name} cannot be read as a JSON object and is left out")
    return None


def _disagreements(spent: Mapping[str, float], result: Mapping[str, Any] | None) -> list[str]:
    """Notes on units whose sum over the journal is not what the result says: the report must not hide that the books do not add up."""
    said = (result or {}).get("spent") or {}
    return [
        f"the journal's charges sum to {spent.get(unit, 0.0):.12g} {unit}, result.json says {amount:.12g}"
        for unit, amount in said.items()
        if not math.isclose(spent.get(unit, 0.0), amount, rel_tol=1e-3, abs_tol=0.05)
    ]
