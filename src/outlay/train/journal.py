"""Journal: everything that happened, appended line by line and never changed."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outlay.errors import InputError
from outlay.meter import LOST, Meter
from outlay.record import Record

NAME = "journal.jsonl"
#: kinds of the lines that close a run; what they charge is the report's and the end's, and no resumption undoes it
CLOSING = ("end", "closed")


class Journal:
    """Appends JSON lines, each with what was charged since the line before, so that the lines add up to the accounts.

    A line is handed to the operating system when it is written, so a killed process loses none; ``sync`` makes it survive the machine. While
    the disk is full lines wait in memory. The file is locked, so that two processes never spend one run.

    Args:
        folder: the run directory.
        meter: the books whose fresh charges every line takes along.
        active: False on processes that must not write (all but the first).

    Raises:
        InputError: when another process holds the run.
    """

    def __init__(self, folder: Path, meter: Meter, active: bool = True) -> None:
        self._meter, self._active = meter, active
        self._waiting: list[str] = []
        self.warnings: list[str] = []
        self.lines = 0
        if not active:
            return
        path = folder / NAME
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  (held open for the whole run)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another process is spending the run in {folder}; wait for it or stop it") from None
        text = path.read_bytes()
        if text and not text.endswith(b"\n"):
            self._file.write(b"\n")  # a line torn by a kill is closed and will be passed over
        self.lines = text.count(b"\n") + (not text.endswith(b"\n") and bool(text))

    def write(self, kind: str, **entries: Any) -> None:
        """Append a line of ``kind`` with what was charged since the last."""
        charged = self._meter.drain()
        if not self._active:
            return
        # to the instant of the charges, so that the lines up to this one add up to it
        at = math.fsum(book.get("seconds", 0.0) for book in self._meter.settled()["accounts"].values())
        line = {"n": self.lines, "kind": kind, "at": at, **entries}
        if charged:
            line["charged"] = charged
        self.lines += 1
        self._waiting.append(json.dumps(line, allow_nan=True, separators=(",", ":"), default=str) + "\n")
        self._flush()

    def warn(self, message: str) -> None:
        """Append a warning; the report shows it."""
        self.warnings.append(message)
        self.write("warning", message=message)

    def _flush(self) -> None:
        data = "".join(self._waiting).encode()
        try:
            written = self._file.write(data)
        except OSError:
            return
        # a disk that fills up in the middle takes part of the data: keep the rest for later
        self._waiting = [data[written:].decode(errors="replace")] if written is not None and written < len(data) else []

    def sync(self) -> None:
        """Ask the operating system to put all lines on the disk."""
        if self._active:
            self._flush()
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                self.warnings.append(f"the journal could not be synced: {error}")

    def close(self) -> None:
        """Sync and let go of the run."""
        if self._active:
            self.sync()
            self._file.close()


def journaled(record: Record) -> dict[str, Any]:
    """Return what a step's line holds of its record; what it used is in the line's charges."""
    return {
        "step": record.step, "stage": record.stage, "progress": record.progress, "loss": record.loss, "gradient_norm": record.gradient_norm,
        "knobs": record.knobs, "outcome": record.outcome, "metrics": record.metrics,
    }  # fmt: skip


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's journal; lines torn by a kill are left out.

    Raises:
        InputError: when the folder holds no journal.
    """
    path = folder / NAME
    if not path.is_file():
        raise InputError(f"{folder} is not a run directory: it holds no {NAME}")
    lines = []
    for raw in path.read_bytes().split(b"\n"):
        try:
            line = json.loads(raw) if raw.strip() else None
        except ValueError:
            line = None
        if isinstance(line, dict) and "kind" in line:
            lines.append(line)
    return lines


def how_ended(lines: list[dict[str, Any]]) -> str | None:
    """Return what ended a run; None while it has not been closed since it was last taken up."""
    last = next((line["kind"] for line in reversed(lines) if line["kind"] in ("closed", "resume")), None)
    return next(line["ended_by"] for line in reversed(lines) if line["kind"] == "end") if last == "closed" else None


def effective(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of the one history that led to the final weights: what a kill undid is left out."""
    history: list[dict[str, Any]] = []
    for line in lines:
        if line["kind"] == "resume":
            history = [old for old in history if old["n"] < line["from_line"]]
        history.append(line)
    return history


def lost_since(lines: list[dict[str, Any]], saved_at: int, step: int) -> dict[str, float]:
    """Return what was charged after the checkpoint of ``step`` was taken at line ``saved_at``, and is lost with the process that was killed.

    What saving that checkpoint cost is no loss, nor is what closing a stopped run took (see ``kept_since``). Losses booked by earlier
    resumptions are not lost a second time.
    """
    lost: dict[str, float] = {}
    for line in lines:
        if line["n"] >= saved_at and not _is_kept(line, step):
            for account, book in line.get("charged", {}).items():
                for unit, amount in book.items() if account != LOST else ():
                    lost[unit] = lost.get(unit, 0.0) + amount
    return lost


def kept_since(lines: list[dict[str, Any]], saved_at: int, step: int) -> dict[str, dict[str, float]]:
    """Return what was charged after line ``saved_at`` and stays on the books, by account: saving the checkpoint of ``step``, and closing."""
    kept: dict[str, dict[str, float]] = {}
    for line in lines:
        if line["n"] >= saved_at and _is_kept(line, step):
            for account, book in line.get("charged", {}).items():
                mine = kept.setdefault(account, {})
                for unit, amount in book.items():
                    mine[unit] = mine.get(unit, 0.0) + amount
    return kept


def _is_kept(line: Mapping[str, Any], step: int) -> bool:
    return bool((line["kind"] == "checkpoint" and line["step"] == step) or line["kind"] in CLOSING)
