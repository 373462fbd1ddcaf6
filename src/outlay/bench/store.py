"""Store: what runs came to, one line a run, so that a bench which was stopped goes on and benches share what they have in common."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from outlay.errors import MissingExtra

NAME = "runs.jsonl"


class Store:
    """Results of runs by key, in a folder. Lines are only added; a torn last line (a kill) is passed over.

    Args:
        folder: where ``runs.jsonl`` lies or will lie.
        retry: pass over runs that could not be judged (a package was missing, the disk full), so that they are run again.
    """

    def __init__(self, folder: Path | str, retry: bool = False) -> None:
        self.folder = Path(folder)
        self._rows: dict[str, dict[str, Any]] = {}
        path = self.folder / NAME
        if path.is_file():
            for line in path.read_bytes().split(b"\n"):
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if not (retry and row.get("outcome") == "error"):
                    self._rows[row["key"]] = row

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._rows[key]

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a result, or None when there is none."""
        return self._rows.get(key)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> list[dict[str, Any]]:
        """Return all results."""
        return list(self._rows.values())

    def add(self, row: dict[str, Any]) -> None:
        """Add a result; it is on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(row, allow_nan=True).encode() + b"\n"
        handle = os.open(self.folder / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":  # a kill tore the last line: begin a new one
                line = b"\n" + line
            os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)
        self._rows[row["key"]] = row


def write_table(rows: list[dict[str, Any]], path: Path) -> Path:
    """Write rows of plain values as Parquet, or as JSON when ``path`` ends in .json.

    Raises:
        MissingExtra: without pyarrow, for Parquet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return path
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "bench") from None
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path
