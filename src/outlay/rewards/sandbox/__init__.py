"""Sandbox: runs Python programs that nobody trusts, outside of this process, within limits, several at a time.

For each worker there is a keeper, a small process of the standard library alone that is started once and forks a child a program (``keeper.py``).
Two levels of protection are tried in this order, and a trial program must pass under one:

- ``namespaces``: process, mount, network, IPC and user namespaces. The child is the first process of a process namespace, so that the kernel
  itself ends all that it has started when it ends or is ended; its root holds the standard library and shared libraries, read-only, and a
  scratch folder of its own in memory; there is no network and no ``/proc``. Needs root, or a kernel that allows user namespaces.
- ``landlock``: the child is alone. It starts no process, signals none but itself, writes no file at all and reads only libraries. Needs no
  privilege, but Linux 5.13 or newer with Landlock; it also works where containers forbid namespaces.

Both: a session of its own, ended with its keeper; no environment; no privileges and none to be had; a system-call filter (no other program, no
tracing, no socket, no memory outside of the limits, no mount); limits of time, memory, processes, files and output.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from outlay.errors import InputError

Key = TypeVar("Key")

LEVELS = ("namespaces", "landlock")

_START_SECONDS = 60.0  # for a keeper to come up on a machine that is busy
_GRACE_SECONDS = 5.0  # for a keeper to say how a program ended, before it is given up as lost
_MIB = 1 << 20
_TRIAL = "import wave, threading\n{more}print(input()[::-1])\n"
_THREAD = "t = threading.Thread(target=str)\nt.start()\nt.join()\n"


@dataclass(frozen=True)
class Limits:
    """What one program may take. See ``outlay.rewards.Code`` for the fields."""

    seconds: float
    cpu: int
    memory: int
    processes: int
    disk: int
    file: int
    files: int
    output: int

    def plain(self) -> dict[str, Any]:
        """Return what the keeper enforces, sizes in bytes."""
        plain = asdict(self)
        plain.pop("output")  # whoever reads it counts it
        return plain | {name: plain[name] * _MIB for name in ("memory", "disk", "file")}


@dataclass(frozen=True)
class Program:
    """What to run.

    Args:
        source: a Python program.
        input: its standard input; with ``call``, an expression to evaluate among the program's names once it has run.
        call: what is returned as output is then the expression's value, as JSON.
    """

    source: str
    input: str
    call: bool = False


@dataclass(frozen=True)
class Outcome:
    """How it went.

    Args:
        kind: ``ended`` by itself or by the kernel; ended for being ``late`` or for its ``output``; or ``lost``, when the sandbox failed.
        code: exit code, negative for a signal.
        out: what it wrote, or the value of the expression.
        err: what it wrote to standard error.
        seconds: wall time from the program's first instruction.
        why: of the sandbox's failure.
    """

    kind: Literal["ended", "late", "output", "lost"]
    code: int = -1
    out: bytes = b""
    err: bytes = b""
    seconds: float = 0.0
    why: str = ""


class Sandbox:
    """Runs programs. Keepers are started as they are needed and replaced when they fail; ``close`` ends them, as does the end of this process.

    Args:
        limits: of each program.
        workers: programs at a time, >= 1.
        levels: protections that are acceptable, best first.

    Raises:
        InputError: when no acceptable protection can be had here; it names what failed.
    """

    def __init__(self, limits: Limits, workers: int, levels: tuple[str, ...] = LEVELS) -> None:
        self._limits = limits
        self.protection = ""
        self._idle: list[_Keeper] = []
        self._missing = workers - 1
        reasons = []
        for level in levels if sys.platform == "linux" else ():
            reason = self._trial(level)
            if not reason:
                self.protection = level
                break
            reasons.append(f"{level}: {reason}")
        if not self.protection:
            found = "; ".join(reasons) or f"this system is {sys.platform}, and Linux is needed"
            raise InputError(f"model-written programs cannot be run safely here ({found})")
        self._close = weakref.finalize(self, _close_all, self._idle)

    def _trial(self, level: str) -> str:
        more = _THREAD if self._limits.processes > 1 else ""
        try:
            keeper = _Keeper(level, self._limits)
            keeper.start(Program(_TRIAL.format(more=more), "trial"))
            while (outcome := keeper.poll(0.05)) is None:
                pass
        except OSError as error:
            return str(error)
        if outcome.kind == "ended" and outcome.out == b"lairt\n":
            self._idle.append(keeper)
            return ""
        keeper.close()
        last = outcome.err.decode(errors="replace").strip().split("\n")[-1]
        return f"the trial program failed ({outcome.why or last or outcome.kind})"

    def run(self, programs: Iterator[tuple[Key, Program]]) -> Iterator[tuple[Key, Outcome]]:
        """Yield each program's key and outcome as they end. The next program is only asked for when a worker is free."""
        busy: dict[_Keeper, Key] = {}
        more = True
        try:
            while more or busy:
                while more and (self._idle or self._missing):
                    following = next(programs, None)
                    if following is None:
                        more = False
                        break
                    key, program = following
                    try:
                        keeper = self._take()
                    except OSError as error:
                        yield key, Outcome("lost", why=f"the sandbox cannot start: {error}")
                        continue
                    busy[keeper] = key
                    keeper.start(program)
                for keeper, outcome in _first(list(busy)):
                    key = busy.pop(keeper)
                    self._give_back(keeper, outcome.kind != "lost")
                    yield key, outcome
        finally:
            for keeper in busy:
                self._give_back(keeper, sound=False)

    def close(self) -> None:
        """End the keepers."""
        self._close()

    def _take(self) -> _Keeper:
        if self._idle:
            return self._idle.pop()
        keeper = _Keeper(self.protection, self._limits)
        self._missing -= 1
        return keeper

    def _give_back(self, keeper: _Keeper, sound: bool) -> None:
        if sound:
            self._idle.append(keeper)
        else:
            keeper.close()
            self._missing += 1


def _first(keepers: list[_Keeper]) -> list[tuple[_Keeper, Outcome]]:
    """Wait for one of them at least."""
    while keepers:
        with selectors.DefaultSelector() as selector:
            for keeper in keepers:
                for descriptor in keeper.watched():
                    selector.register(descriptor, selectors.EVENT_READ)
            selector.select(max(0.0, min(keeper.patience() for keeper in keepers)))
        ended = [(keeper, outcome) for keeper in keepers if (outcome := keeper.poll(0.0)) is not None]
        if ended:
            return ended
    return []


def _close_all(keepers: list[_Keeper]) -> None:
    while keepers:
        keepers.pop().close()


@dataclass
class _Running:
    """A program on its way: when it is given up, what it has written, and the pipes that are still open."""

    deadline: float
    written: dict[int, bytearray]
    out: int
    err: int
    open: list[int] = field(default_factory=list)
    full: bool = False


class _Keeper:
    """This side of a keeper process."""

    def __init__(self, level: str, limits: Limits) -> None:
        self._limits = limits
        self._owner = os.getpid()
        self._running: _Running | None = None
        self._control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
        file = Path(__file__).with_name("keeper.py")
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-B", str(file), str(its.fileno()), level, json.dumps(limits.plain())],
                env=passed | {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
                start_new_session=True,
            )
        self._control.settimeout(_START_SECONDS)
        try:
            said = self._hear()
            if "ready" not in said:
                raise OSError(said.get("problem", "it ended as it started"))
        except OSError:
            self.close()
            raise

    def start(self, program: Program) -> None:
        """Have a program run."""
        given = [_sealed(program.source), _sealed(program.input)]
        out, its_out = os.pipe()
        err, its_err = os.pipe()
        for descriptor in (out, err):
            os.set_blocking(descriptor, False)
        deadline = time.monotonic() + self._limits.seconds + _GRACE_SECONDS
        self._running = _Running(deadline, {out: bytearray(), err: bytearray()}, out, err, [out, err])
        given += [its_out, its_err]
        with contextlib.suppress(OSError):  # a keeper that is gone is noticed when its answer is waited for
            socket.send_fds(self._control, [b"c" if program.call else b"r"], given)
        for descriptor in given:
            os.close(descriptor)

    def watched(self) -> list[int]:
        """Return the descriptors on which something is to be expected."""
        assert self._running is not None
        return [self._control.fileno(), *self._running.open]

    def patience(self) -> float:
        """Return the seconds after which the running program is given up."""
        assert self._running is not None
        return self._running.deadline - time.monotonic()

    def poll(self, wait: float) -> Outcome | None:
        """Read what there is to read; return the outcome if the program has ended."""
        running = self._running
        assert running is not None
        self._read(running)
        self._control.settimeout(wait or 1e-6)
        try:
            said = self._hear()
        except TimeoutError:
            if time.monotonic() < running.deadline:
                return None
            said = {"problem": "its keeper does not answer"}
        except OSError as error:
            said = {"problem": f"its keeper is gone ({error})"}
        self._read(running)
        self._drop_pipes()
        if "problem" in said:
            return Outcome("lost", why=said["problem"])
        kind: Literal["ended", "late", "output"] = "output" if running.full else "late" if said["late"] else "ended"
        return Outcome(kind, said["code"], bytes(running.written[running.out]), bytes(running.written[running.err]), said["seconds"])

    def _read(self, running: _Running) -> None:
        for descriptor in list(running.open):
            while not running.full:
                try:
                    piece = os.read(descriptor, 1 << 16)
                except BlockingIOError:
                    break
                if not piece:
                    running.open.remove(descriptor)
                    break
                running.written[descriptor] += piece
                running.full = sum(map(len, running.written.values())) > self._limits.output
        if running.full and running.open:
            running.open.clear()
            with contextlib.suppress(OSError):
                self._control.send(b"k")

    def _hear(self) -> dict[str, Any]:
        message = self._control.recv(1 << 16)
        if not message:
            raise OSError("it ended unexpectedly")
        said: dict[str, Any] = json.loads(message)
        return said

    def _drop_pipes(self) -> None:
        if self._running is not None:
            os.close(self._running.out)
            os.close(self._running.err)
            self._running = None

    def close(self) -> None:
        """End the keeper and what it runs."""
        if os.getpid() != self._owner:
            return  # a forked copy of this process has no say in it
        self._drop_pipes()
        self._control.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _sealed(text: str) -> int:
    """Return a descriptor of a text in memory that nobody can change."""
    descriptor = os.memfd_create("given", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(text.encode("utf-8", "replace"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return descriptor
