"""Reports: what a run spent, on what, and what it bought; as an HTML page, on a terminal, and as values to work with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from outlay.errors import InputError
from outlay.reporting.html import render
from outlay.reporting.read import RunRecord, read_run
from outlay.reporting.summary import print_summary, summary
from outlay.reporting.terminal import Display, Quiet, make_display

__all__ = [
    "Display",
    "Quiet",
    "RunRecord",
    "make_display",
    "print_summary",
    "read_run",
    "render",
    "report",
    "summary",
]


def report(paths: Sequence[Path | str] | Path | str, html: Path | str | None = None) -> Path:
    """Write the HTML report of one run, or of several side by side, and return where it lies.

    Args:
        paths: run directories.
        html: file to write; by default ``report.html`` in the directory of a single run, ``./report.html`` for several.

    Raises:
        InputError: when a path is not a run directory, or the file cannot be written.
    """
    folders = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    page = render([read_run(folder) for folder in folders])
    target = Path(html) if html is not None else folders[0] / "report.html" if len(folders) == 1 else Path("report.html")
    try:
        _write(target, page)
    except OSError as error:
        raise InputError(f"the report cannot be written to {target}: {error.strerror or error}; give another file") from error
    return target


def _write(target: Path, page: str) -> None:
    """Write aside and rename, so that a report that is being read is never half a page."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        aside.write_text(page, encoding="utf-8")
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
