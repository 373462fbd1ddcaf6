"""The journal: its lines add up to the accounts, a torn one is passed over, one process writes at a time, a full disk loses no line."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.budget import Budget
from outlay.errors import InputError
from outlay.meter import LOST, Meter
from outlay.testing import FakeClock
from outlay.train.journal import NAME, Journal, effective, kept_since, lost_since, read_journal


def opened(folder: Path) -> tuple[FakeClock, Meter, Journal]:
    clock = FakeClock()
    meter = Meter(Budget.parse("1h"), clock)
    return clock, meter, Journal(folder, meter)


def added_up(lines: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    accounts: dict[str, dict[str, float]] = {}
    for line in lines:
        for account, book in line.get("charged", {}).items():
            for unit, amount in book.items():
                mine = accounts.setdefault(account, {})
                mine[unit] = mine.get(unit, 0.0) + amount
    return accounts


charge = st.tuples(st.sampled_from(["train", "eval", "data"]), st.integers(0, 2**30), st.integers(0, 2**20), st.booleans())


@given(charges=st.lists(charge, max_size=30))
def test_lines_add_up_to_the_accounts_at_every_line(
    tmp_path_factory: pytest.TempPathFactory, charges: list[tuple[str, int, int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    clock, meter, journal = opened(folder)
    for account, ticks, tokens, writes in charges:
        with meter.spend(account):
            clock.advance(ticks / 1024)
        meter.charge(account, tokens=tokens)
        if writes:
            journal.write("step", step=1)
            lines = read_journal(folder)
            books = added_up(lines)
            assert {account: {u: a for u, a in book.items() if a} for account, book in books.items() if any(book.values())} == {
                account: {u: a for u, a in book.items() if a} for account, book in meter.accounts.items() if any(book.values())
            }
            assert lines[-1]["at"] == clock.now == sum(book.get("seconds", 0.0) for book in books.values())
    journal.close()
    assert [line["n"] for line in read_journal(folder)] == list(range(sum(writes for *_, writes in charges)))


def test_a_line_holds_what_was_charged_since_the_one_before(tmp_path: Path) -> None:
    clock, meter, journal = opened(tmp_path)
    journal.write("run", seed=3)
    clock.advance(2.0)
    with meter.spend("train"):
        clock.advance(1.5)
    meter.charge("train", tokens=10)
    journal.write("step", step=1)
    journal.write("end", ended_by="steps", message="")
    journal.warn("something odd")
    journal.close()
    assert read_journal(tmp_path) == [
        {"n": 0, "kind": "run", "at": 0.0, "seed": 3},
        {"n": 1, "kind": "step", "at": 3.5, "step": 1, "charged": {"idle": {"seconds": 2.0}, "train": {"seconds": 1.5, "tokens": 10.0}}},
        {"n": 2, "kind": "end", "at": 3.5, "ended_by": "steps", "message": ""},
        {"n": 3, "kind": "warning", "at": 3.5, "message": "something odd"},
    ]
    assert journal.warnings == ["something odd"]


def test_what_json_does_not_know_is_written_all_the_same(tmp_path: Path) -> None:
    _, _, journal = opened(tmp_path)
    journal.write("step", loss=float("nan"), folder=tmp_path, text="naïve ∞ \n")
    journal.close()
    (line,) = read_journal(tmp_path)
    assert line["loss"] != line["loss"] and line["folder"] == str(tmp_path) and line["text"] == "naïve ∞ \n"
    assert (tmp_path / NAME).read_bytes().count(b"\n") == 1


# ---- torn ---------------------------------------------------------------------------------------------------------------------------


@given(cut=st.integers(0, 10_000))
def test_a_journal_cut_anywhere_reads_up_to_there_and_can_be_gone_on_with(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("torn")
    _, meter, journal = opened(folder)
    for step in range(4):
        meter.charge("train", tokens=step + 1)
        journal.write("step", step=step)
    journal.close()
    data = (folder / NAME).read_bytes()
    cut %= len(data) + 1
    (folder / NAME).write_bytes(data[:cut])
    whole = data[:cut].count(b"\n") + (
        cut + 1 <= len(data) and data[cut : cut + 1] == b"\n"
    )  # a line that lacks its end mark alone is whole
    assert [line["step"] for line in read_journal(folder)] == list(range(whole))
    with_torn = data[:cut].count(b"\n") + (not data[:cut].endswith(b"\n") and cut > 0)
    again = Journal(folder, Meter(Budget.parse("1h"), FakeClock()))
    assert again.lines == with_torn
    again.write("resume", from_step=0)
    again.close()
    lines = read_journal(folder)
    assert [line["kind"] for line in lines] == ["step"] * whole + ["resume"]
    assert lines[-1]["n"] == with_torn  # a torn line keeps its number
    assert (folder / NAME).read_bytes().split(b"\n")[with_torn] == json.dumps(lines[-1], separators=(",", ":")).encode()


def test_lines_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b'{"n":0,"kind":"run"}\n\n[1]\n3\n{"n":4}\n\xff\xfe\n{"n":6,"kind":"end"}\n{"n":7,"ki')
    assert [line["n"] for line in read_journal(tmp_path)] == [0, 6]


def test_a_folder_without_a_journal_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run directory"):
        read_journal(tmp_path)


# ---- one writer ---------------------------------------------------------------------------------------------------------------------

HOLD = """
import fcntl, sys
held = open(sys.argv[1], "ab")
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    _, _, journal = opened(tmp_path)
    journal.write("run")
    journal.close()
    before = (tmp_path / NAME).read_bytes()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / NAME)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another process is spending the run in"):
        opened(tmp_path)
    assert (tmp_path / NAME).read_bytes() == before
    holder.kill()
    holder.communicate()
    opened(tmp_path)[2].close()


def test_the_lock_is_let_go_when_the_journal_is_closed(tmp_path: Path) -> None:
    _, _, journal = opened(tmp_path)
    with pytest.raises(InputError, match="another process"):
        opened(tmp_path)
    journal.close()
    opened(tmp_path)[2].close()


def test_a_process_that_is_not_the_first_writes_nothing_and_keeps_its_books(tmp_path: Path) -> None:
    clock = FakeClock()
    meter = Meter(Budget.parse("1h"), clock)
    journal = Journal(tmp_path, meter, active=False)
    with meter.spend("train"):
        clock.advance(1.0)
    journal.write("step", step=1)
    journal.warn("mine alone")
    journal.sync()
    journal.close()
    assert list(tmp_path.iterdir()) == [] and journal.warnings == ["mine alone"]
    assert meter.settled()["accounts"]["train"] == {"seconds": 1.0}


# ---- a full disk --------------------------------------------------------------------------------------------------------------------


class Flaky:
    """A file on a disk with so much room; ``room`` None is a disk without end."""

    def __init__(self, file: Any) -> None:
        self.file, self.room = file, None

    def write(self, data: bytes) -> int:
        if self.room is None:
            return int(self.file.write(data))
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = int(self.file.write(data[: self.room]))
        self.room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1, 30, 100, 250])
def test_a_disk_that_fills_up_and_empties_loses_no_line(tmp_path: Path, room: int) -> None:
    _, meter, journal = opened(tmp_path)
    flaky = Flaky(journal._file)
    journal._file = flaky  # type: ignore[assignment]
    for step in range(12):
        flaky.room = {3: room, 8: None}.get(step, flaky.room)  # type: ignore[assignment]
        meter.charge("train", tokens=step)
        journal.write("step", step=step)
        written = (tmp_path / NAME).read_bytes()
        if step >= 8:
            assert written.count(b"\n") == step + 1
    journal.close()
    lines = read_journal(tmp_path)
    assert [line["step"] for line in lines] == [line["n"] for line in lines] == list(range(12))
    assert added_up(lines)["train"]["tokens"] == sum(range(12))


def test_lines_that_wait_are_written_when_the_journal_is_closed(tmp_path: Path) -> None:
    _, _, journal = opened(tmp_path)
    flaky = Flaky(journal._file)
    journal._file = flaky  # type: ignore[assignment]
    flaky.room = 0  # type: ignore[assignment]
    journal.write("step", step=1)
    assert read_journal(tmp_path) == []
    flaky.room = None
    journal.close()
    assert [line["step"] for line in read_journal(tmp_path)] == [1]


def test_a_disk_that_cannot_sync_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import outlay.train.journal as module

    _, _, journal = opened(tmp_path)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(module.os, "fsync", fail)
        journal.sync()
    assert journal.warnings == ["the journal could not be synced: [Errno 5] Input/output error"]
    journal.close()


# ---- what a kill undid --------------------------------------------------------------------------------------------------------------


def line(n: int, kind: str, charged: dict[str, dict[str, float]] | None = None, **entries: Any) -> dict[str, Any]:
    return {"n": n, "kind": kind, **entries, **({"charged": charged} if charged else {})}


KILLED = [
    line(0, "run", {"setup": {"seconds": 3.0}}),
    line(1, "step", {"train": {"seconds": 1.0, "steps": 1.0}}, step=1),
    line(2, "checkpoint", {"checkpoint": {"seconds": 0.5}, "idle": {"seconds": 0.1}}, step=1),
    line(3, "step", {"train": {"seconds": 1.25, "steps": 1.0}}, step=2),
    line(4, "evaluation", {"eval": {"seconds": 2.0, "tokens": 7.0}}, step=2),
]
ONCE = [
    *KILLED,
    line(5, "resume", {"setup": {"seconds": 4.0}, LOST: {"seconds": 3.25}}, from_step=1, from_line=2, lost={"seconds": 3.25}),
    line(6, "step", {"train": {"seconds": 1.0, "steps": 1.0}}, step=2),
]


def test_what_came_after_the_checkpoint_is_lost_and_saving_it_is_not() -> None:
    assert lost_since(KILLED, 2, 1) == {"seconds": 3.25, "steps": 1.0, "tokens": 7.0}
    assert kept_since(KILLED, 2, 1) == {"checkpoint": {"seconds": 0.5}, "idle": {"seconds": 0.1}}
    assert kept_since(KILLED[:2], 2, 1) == {}  # the kill came before the checkpoint's line
    assert lost_since(KILLED, 0, -1) == {"seconds": 7.85, "steps": 2.0, "tokens": 7.0}  # without a checkpoint


def test_what_was_booked_as_lost_is_not_lost_again() -> None:
    # back to the same checkpoint: what the second process did is lost as well, and the loss itself is told anew
    assert lost_since(ONCE, 2, 1) == {"seconds": pytest.approx(1.25 + 2.0 + 4.0 + 1.0), "steps": 2.0, "tokens": 7.0}


def test_the_history_that_counts() -> None:
    assert effective(KILLED) == KILLED
    assert [entry["n"] for entry in effective(ONCE)] == [0, 1, 5, 6]
    twice = [
        *ONCE,
        line(7, "resume", from_step=1, from_line=2, lost={}),
        line(8, "step", step=2),
        line(9, "resume", from_step=2, from_line=9, lost={}),
    ]
    assert [entry["n"] for entry in effective(twice)] == [0, 1, 7, 8, 9]
