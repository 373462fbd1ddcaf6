"""Attacks: hostile programs judged side by side with honest ones, and what came of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from outlay.context import Context
from outlay.prompts.base import Question
from outlay.rewards.base import Answer
from outlay.rewards.code import Code, CodeJudge
from outlay.testing.hostile_programs import ESCAPED, KINDS, SECRET, Hostile, hostile_programs


def secret(number: int) -> str:
    """Return the only output that would be right: nothing that a program is given leads to it."""
    return f"{SECRET}4{number:031x}"


def lay_bait(outside: Path) -> None:
    """Fill a folder with files that everybody may change, so that nothing but the sandbox protects them."""
    outside.chmod(0o777)
    for name, text in (("sentinel", "untouched"), ("secret", secret(0))):
        (outside / name).write_text(text)
        (outside / name).chmod(0o666)


def escapes(outside: Path, trainer: int) -> list[str]:
    """Return what programs have changed or left outside of their own folders; empty where nothing got out."""
    found = []
    try:
        status = (outside / "sentinel").stat()
        kept = sorted(path.name for path in outside.iterdir()), (outside / "sentinel").read_text(), status.st_mode & 0o777
        if kept != (["secret", "sentinel"], "untouched", 0o666) or status.st_nlink != 1 or status.st_mtime < 1e6:
            found.append(f"{outside} holds {kept}")
    except OSError as error:
        found.append(str(error))
    places = ("/", "/tmp", "/var/tmp", "/dev/shm", str(Path.home()), str(Path.cwd()))
    return found + [f"{place}/{name}" for place in places for name in _names(place) if name == f"{ESCAPED}-{trainer}"]


def _names(place: str) -> list[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []


def processes_marked(mark: str) -> Iterator[int]:
    """Yield the ids of processes whose command line holds ``mark``; programs that cannot start another keep that of their keeper."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if mark.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    yield int(name)
            except OSError:
                pass  # it has ended meanwhile


@dataclass(frozen=True)
class Attack:
    """What came of one hostile program.

    Args:
        program: which one.
        outcome: the verdict's; anything but ``failed`` is a defect.
        why: the verdict's.
        over: seconds that the judge took longer than the program's limit of wall time; negative where it ended earlier.
    """

    program: Hostile
    outcome: str
    why: str
    over: float


@dataclass(frozen=True)
class KindReport:
    """What came of one kind of hostile programs.

    Args:
        kind: which one.
        attacks: its programs.
        escapes: what was changed or left outside; should be empty.
        orphans: processes that were left running; should be empty.
        honest: how many of the honest programs judged afterwards, one a lane, passed.
    """

    kind: str
    attacks: tuple[Attack, ...]
    escapes: tuple[str, ...]
    orphans: tuple[int, ...]
    honest: int

    @property
    def rewarded(self) -> int:
        """Programs with a value that they should not have, or without a verdict."""
        return sum(attack.outcome != "failed" for attack in self.attacks)


def attack(
    outside: Path, *, lanes: int = 4, seconds: float = 0.5, level: Literal["best", "namespaces", "landlock"] = "best", variants: int = 10
) -> list[KindReport]:
    """Judge the hostile programs with ``outlay.rewards.Code``, ``lanes`` at a time, and honest ones in between; report by kind.

    Args:
        outside: an empty folder.
        lanes: judges at work at the same time, each on one program.
        seconds: limit of wall time of a program.
        level: the protection that they run under; ``best`` for the best that can be had.
        variants: how many programs of each kind, at most 10.
    """
    lay_bait(outside)
    seconds += os.getpid() * 1e-9  # tells the keepers of this process from others'
    reward = Code(level=level, seconds=seconds, cpu=1, memory=128, processes=6, disk=8, file=4, files=64, output=100_000)
    judges = [reward.open(Context(seed=0)) for _ in range(lanes)]
    programs = [program for program in hostile_programs(outside, os.getpid()) if program.variant < variants]
    reports = []
    try:
        for kind in KINDS:
            before = set(processes_marked(f'"seconds": {seconds}'))
            waiting: queue.SimpleQueue[Hostile] = queue.SimpleQueue()
            for program in programs:
                if program.kind == kind:
                    waiting.put(program)
            attacks: list[Attack] = []
            honest: list[bool] = []

            def lane(judge: CodeJudge, waiting: Any = waiting, attacks: Any = attacks, honest: Any = honest) -> None:
                with contextlib.suppress(queue.Empty):
                    while True:
                        attacks.append(_attack(judge, waiting.get_nowait(), seconds))
                honest.append(judge.judge([_answer("print(int(input()) ** 2)", "7", "49")])[0].outcome == "passed")

            threads = [threading.Thread(target=lane, args=(judge,)) for judge in judges]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            left = sorted(set(processes_marked(f'"seconds": {seconds}')) - before)
            attacks.sort(key=lambda attack: attack.program.variant)
            reports.append(KindReport(kind, tuple(attacks), tuple(escapes(outside, os.getpid())), tuple(left), sum(honest)))
    finally:
        for judge in judges:
            judge.close()
    return reports


def _attack(judge: CodeJudge, program: Hostile, seconds: float) -> Attack:
    number = int.from_bytes(hashlib.blake2b(program.source.encode(), digest_size=15).digest(), "big")
    begin = time.monotonic()
    verdict = judge.judge([_answer(program.source, "3 4\n", secret(number))])[0]
    return Attack(program, verdict.outcome, verdict.why, time.monotonic() - begin - seconds)


def _answer(source: str, given: str, wanted: str) -> Answer:
    question = Question("", extra={"tests": [{"input": given, "output": wanted}]})
    return Answer(question, source, tokens=1, ended=True, limit=1, group=0)
