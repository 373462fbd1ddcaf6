"""The face: where reports are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import Made

from outlay.errors import InputError
from outlay.reporting import read_run, render, report

Make = Callable[..., Made]


def test_one_run_gets_its_report_beside_it(make: Make) -> None:
    made = make(steps=12)
    path = report([made.path])
    assert path == made.path / "report.html"
    assert path.read_text(encoding="utf-8") == render([read_run(made.path)])
    assert report(str(made.path)) == path  # a single path may stand for a list of one
    assert not [left for left in made.path.iterdir() if left.name.startswith(".")]


def test_several_runs_get_theirs_here(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = [make("a", steps=12).path, make("b", steps=12).path]
    monkeypatch.chdir(tmp_path)
    path = report(runs)
    assert path == Path("report.html") and "Side by side" in path.read_text(encoding="utf-8")


def test_report_where_it_is_asked_for(make: Make, tmp_path: Path) -> None:
    path = report([make(steps=12).path], tmp_path / "new" / "folder" / "page.html")
    assert path == tmp_path / "new" / "folder" / "page.html" and path.is_file()


def test_what_cannot_be_done_is_told(make: Make, tmp_path: Path) -> None:
    made = make(steps=12)
    with pytest.raises(InputError, match="no such folder"):
        report([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="cannot be written to"):
        report([made.path], made.path)  # a folder is in the way
    with pytest.raises(InputError, match="at least one run"):
        report([])
    assert sorted(path.name for path in made.path.iterdir()) == ["journal.jsonl", "plan.json", "recipe.yaml", "result.json"]
