"""Model-written programs that attack: 200 under the best protection that can be had here, and a variant of each kind under the other."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from made_answers import CONTEXT

from outlay.errors import InputError
from outlay.rewards import Code
from outlay.testing.hostile import KindReport, attack, escapes, lay_bait, processes_marked
from outlay.testing.hostile_programs import ESCAPED, hostile_programs

LANES = 4


def held(report: KindReport, lanes: int) -> None:
    for one in report.attacks:
        told = f"{report.kind} {one.program.variant}: {one}"
        assert one.outcome == "failed", told  # neither rewarded nor unjudged
        assert one.over < 1.0, told
    assert report.escapes == ()
    assert report.orphans == ()
    assert report.honest == lanes


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, KindReport]:
    return {report.kind: report for report in attack(tmp_path_factory.mktemp("outside"), lanes=LANES)}


@pytest.mark.parametrize("kind", dict.fromkeys(program.kind for program in hostile_programs(Path("/nowhere"), 0)))
def test_nothing_gets_out_hangs_stays_or_is_rewarded(reports: dict[str, KindReport], kind: str) -> None:
    assert len(reports[kind].attacks) == 10
    held(reports[kind], LANES)


def test_the_same_under_landlock_alone(tmp_path: Path) -> None:
    try:
        Code(level="landlock").open(CONTEXT).close()
    except InputError as error:
        pytest.skip(str(error))
    for report in attack(tmp_path, lanes=2, seconds=0.4, level="landlock", variants=3):
        held(report, 2)


def test_there_are_two_hundred_different_ones() -> None:
    programs = hostile_programs(Path("/nowhere"), 0)
    assert Counter(Counter(program.kind for program in programs).values()) == {10: 20}
    assert len({program.source for program in programs}) == 200


@pytest.mark.parametrize("harm", ["unlink", "write", "chmod", "link", "add", "leave"])
def test_an_escape_would_be_seen(tmp_path: Path, harm: str) -> None:
    lay_bait(tmp_path)
    assert escapes(tmp_path, 0) == []
    sentinel, left = tmp_path / "sentinel", Path("/tmp") / f"{ESCAPED}-0"
    match harm:
        case "unlink":
            sentinel.unlink()
        case "write":
            sentinel.write_text("gone")
        case "chmod":
            sentinel.chmod(0)
        case "link":
            (tmp_path.parent / f"{tmp_path.name}-link").hardlink_to(sentinel)
        case "add":
            (tmp_path / "more").touch()
        case "leave":
            left.touch()
    try:
        assert len(escapes(tmp_path, 0)) == 1
    finally:
        left.unlink(missing_ok=True)


def test_an_orphan_would_be_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "orphan-to-be-seen"]) as process:
        until = time.monotonic() + 10  # a process that has just begun may not be listed with its arguments yet
        while not (seen := list(processes_marked("orphan-to-be-seen"))) and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
    assert seen == [process.pid]
