"""Judges that misbehave for real, in a module of their own: another process must be able to import them."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from outlay.context import Context
from outlay.errors import InputError, MissingExtra
from outlay.rewards import Answer, Judge, Verdict, failed, passed

#: what an answer's text asks for -> what the judge does on it
MISDEEDS = ("raise", "exit", "segfault", "hang", "kill", "recurse", "stop")


def misbehave(deed: str) -> None:
    if deed == "raise":
        raise KeyError("no such key")
    if deed == "exit":
        os._exit(0)
    if deed == "segfault":
        ctypes.string_at(0)
    if deed == "hang":
        while True:
            pass
    if deed == "kill":
        os.kill(os.getpid(), 9)
    if deed == "recurse":
        misbehave(deed)
    if deed == "stop":
        os.kill(os.getpid(), 19)


@dataclass(frozen=True)
class Unruly:
    """Passes answers whose text is a number, with its share of the group's sum of squares as value, after doing what other texts ask for."""

    bounds = (0.0, 1.0)

    def open(self, context: Context) -> Judge:
        return self  # type: ignore[return-value]

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        for answer in answers:
            misbehave(answer.text)
        squares = {a.group: sum(float(b.text) ** 2 for b in answers if b.group == a.group) for a in answers}
        return [passed(float(a.text) ** 2 / squares[a.group]) if float(a.text) > 0 else failed() for a in answers]


@dataclass(frozen=True)
class Together:
    """Fails on two answers or more, on none alone."""

    bounds = (0.0, 1.0)

    def open(self, context: Context) -> Judge:
        return self  # type: ignore[return-value]

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        if len(answers) > 1:
            os._exit(1)
        return [passed()] * len(answers)


@dataclass(frozen=True)
class Odd:
    """Returns what no judge may return."""

    bounds = (0.0, 1.0)

    def open(self, context: Context) -> Judge:
        return self  # type: ignore[return-value]

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        if any(answer.text == "short" for answer in answers):
            return [passed()] * (len(answers) - 1)
        verdicts = [passed() for _ in answers]
        for answer, verdict in zip(answers, verdicts, strict=True):
            if answer.text == "infinite":
                object.__setattr__(verdict, "value", math.inf)
            if answer.text == "high":
                object.__setattr__(verdict, "value", 1.5)
            if answer.text == "none":
                return [None for _ in answers]  # type: ignore[misc]
        return verdicts


@dataclass(frozen=True)
class Sleepy:
    """Sleeps a while over each answer, and remembers the processes that have judged, in a file."""

    seconds: float
    book: str = ""
    bounds = (0.0, 1.0)

    def open(self, context: Context) -> Judge:
        return self  # type: ignore[return-value]

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        if self.book:
            with Path(self.book).open("a") as file:
                print(os.getpid(), file=file)
        time.sleep(self.seconds * len(answers))
        return [passed() for _ in answers]


@dataclass(frozen=True)
class Nesting:
    """Starts a process, writes its id into a file, and hangs."""

    book: str
    bounds = (0.0, 1.0)

    def open(self, context: Context) -> Judge:
        return self  # type: ignore[return-value]

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(self.book).write_text(str(child.pid))
        time.sleep(600)
        return []


@dataclass(frozen=True)
class Unopenable:
    """Cannot be opened."""

    missing: bool = False
    bounds = (0.0, 1.0)

    def open(self, context: Context) -> Judge:
        if self.missing:
            raise MissingExtra("sympy", "rl")
        raise InputError("there is no such metric")


@dataclass(frozen=True)
class Careful:
    """Asks to be isolated."""

    isolate = True
    bounds = (0.0, 1.0)

    def open(self, context: Context) -> Judge:
        return self  # type: ignore[return-value]

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [passed(float(os.getpid() != int(answer.text))) for answer in answers]
