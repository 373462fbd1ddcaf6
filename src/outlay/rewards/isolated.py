"""Isolated: a judge in processes of its own, with a time limit an answer."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import pickle
import queue
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.rewards.base import Answer, Judge, Reward, Verdict
from outlay.rewards.guarding import Unable, groups, narrowed
from outlay.schedules.base import require

_READY = b"ready"
_START_SECONDS = 300.0  # reading a judge's packages on a machine that is busy


@dataclass(frozen=True)
class Isolated:
    """Judges as another reward does, in other processes: one that crashes or hangs costs the answer its verdict, and nothing else.

    A group is judged at once, within ``seconds``. If the judge dies, raises or is late, each of its answers is judged alone, again within
    ``seconds``; those on which it fails are unjudged, and the others are judged together again, within ``seconds`` an answer, so that a reward
    that compares still sees its group. If it fails even then, the whole group is unjudged. A worker that failed is ended with all it started
    and replaced. Workers are fork-copies of a small process that is started afresh and has opened the judge's packages, never of this one, so
    that a replacement is there at once.

    Args:
        reward: what judges. Its class must be importable: one that is defined in the script that is run cannot be found by another process.
        seconds: limit of an answer, > 0.
        workers: groups that are judged at a time, >= 1.
    """

    title: ClassVar[str] = "Isolated judge"
    paper: ClassVar[Paper | None] = None

    reward: Reward
    seconds: float = 5.0
    workers: int = 1

    def __post_init__(self) -> None:
        require(0 < self.seconds < math.inf, f"seconds must be finite and > 0, found {self.seconds}")
        require(self.workers >= 1, f"workers must be >= 1, found {self.workers}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Those of the reward."""
        return self.reward.bounds

    def open(self, context: Context) -> IsolatedJudge:
        """Start the workers; judges see the CPU as their device.

        Raises:
            InputError: when the reward or the tokenizer cannot be sent to another process, or the reward cannot be opened.
        """
        return IsolatedJudge(self, replace(context, device="cpu"))


def open_judge(reward: Reward, context: Context) -> Judge:
    """Open a reward, isolated if its class asks for that: ``isolate: ClassVar[bool] = True``."""
    return Isolated(reward).open(context) if getattr(type(reward), "isolate", False) else reward.open(context)


class IsolatedJudge:
    """An isolated judge, opened."""

    def __init__(self, isolated: Isolated, context: Context) -> None:
        self._seconds = isolated.seconds
        if type(isolated.reward).__module__ == "__main__":
            raise InputError(
                f"{type(isolated.reward).__name__} is defined in the script that is run, where another process cannot find it; move it to a module"
            )
        try:
            sent = pickle.dumps((isolated.reward, context))
        except Exception as error:
            raise InputError(f"{type(isolated.reward).__name__} cannot be sent to another process: {error}") from error
        self._workers: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        made = [_Worker(sent) for _ in range(isolated.workers)]
        self._close = weakref.finalize(self, _close_all, made)
        try:
            for worker in made:  # all of them are coming up at the same time
                worker.wait_until_ready()
                self._workers.put(worker)
        except BaseException:
            self.close()
            raise
        self._count = len(made)

    def close(self) -> None:
        """End the workers."""
        self._close()

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer, in order."""
        parts = groups(answers)
        if self._count == 1 or len(parts) < 2:
            return [verdict for part in parts for verdict in self._group(part)]
        with ThreadPoolExecutor(self._count) as pool:
            return [verdict for verdicts in pool.map(self._group, parts) for verdict in verdicts]

    def _group(self, group: list[Answer]) -> list[Verdict]:
        worker = self._workers.get()
        tried = 0

        def attempt(some: Sequence[Answer]) -> list[Verdict]:
            nonlocal tried
            tried += 1
            # first all of them, then each alone, and what is left in the end with as much time as it had alone
            return worker.judge(some, self._seconds * (len(some) if tried > 1 else 1))

        try:
            return narrowed(attempt, group)
        finally:
            self._workers.put(worker)


class _Worker:
    """This side of a worker: its starter, which outlives judges that die, and the judge that lives now."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent
        self._owner = os.getpid()
        self._judge: socket.socket | None = None
        self._alive = -1
        self._start()

    def _start(self) -> None:
        self._control, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(its.fileno()), json.dumps(sys.path)],
                stdin=subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # threads do not outlive a fork
            )
        self._control.settimeout(_START_SECONDS)
        with contextlib.suppress(OSError):  # where it dies as it starts, that is noticed when it does not come up
            _send(self._control, self._sent)

    def wait_until_ready(self) -> None:
        """Wait until the judge has been opened once.

        Raises:
            InputError: when it cannot be.
        """
        try:
            said = _receive(self._control)
        except OSError as error:
            raise InputError(f"the judge's process did not come up: {error}") from error
        if said != _READY:
            raise InputError(said.decode(errors="replace"))

    def judge(self, answers: Sequence[Answer], seconds: float) -> list[Verdict]:
        """Have answers judged.

        Raises:
            Unable: when the judge raises, dies or is late.
        """
        try:
            sent = pickle.dumps(list(answers))
            judge = self._connected()
        except (OSError, InputError, pickle.PicklingError, TypeError, AttributeError) as error:
            raise Unable(f"no judge is to be had: {error}") from error
        try:
            deadline = time.monotonic() + seconds
            _send(judge, sent, deadline)
            said = json.loads(_receive(judge, deadline))
        except TimeoutError as error:
            self._end()
            raise Unable(f"not done after {seconds:g} s") from error
        except (OSError, ValueError) as error:
            self._end()
            raise Unable("the judge's process died") from error
        if "problem" in said:
            raise Unable(said["problem"])
        return [Verdict(outcome, value, why) for outcome, value, why in said["verdicts"]]

    def _connected(self) -> socket.socket:
        if self._judge is None:
            try:
                self._connect()
            except OSError:
                self.close()
                self._start()
                self.wait_until_ready()
                self._connect()
        assert self._judge is not None
        return self._judge

    def _connect(self) -> None:
        _, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
        if len(descriptors) != 2:
            raise OSError("the judges' starter is gone")
        self._judge, self._alive = socket.socket(fileno=descriptors[0]), descriptors[1]
        try:
            self._judge.settimeout(_START_SECONDS)
            _receive(self._judge)  # it has been opened: that is not the answers' time
        except OSError:
            self._end()
            raise

    def _end(self) -> None:
        """End the judge that lives now; its starter ends what it has started, and starts the next one."""
        if self._judge is not None:
            with contextlib.suppress(OSError):  # it is dead
                signal.pidfd_send_signal(self._alive, signal.SIGKILL)
            os.close(self._alive)
            self._judge.close()
            self._judge = None

    def close(self) -> None:
        """End the judge and its starter."""
        if os.getpid() != self._owner:
            return  # a forked copy of this process has no say in it
        self._end()
        self._control.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _close_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().close()


_START = "import sys, json; sys.path[:] = json.loads(sys.argv[2]); from outlay.rewards.isolated import serve; serve(int(sys.argv[1]))"


def serve(descriptor: int) -> None:
    """Be a worker's starter: open the judge once, then keep one forked copy of this process judging until the other side is gone."""
    control = socket.socket(fileno=descriptor)
    try:
        reward, context = pickle.loads(_receive(control))
        importlib.import_module("outlay.prompts.base")  # answers hold questions; reading it must not take the first answer's time
        opened = reward.open(context)  # reads its packages, and finds out whether it can be opened at all
        getattr(opened, "close", _nothing)()
        del opened
    except Exception as error:
        _send(control, str(error).encode() or type(error).__name__.encode())
        return
    _send(control, _READY)
    while True:
        ours, theirs = socket.socketpair()
        judging = os.fork()
        if judging == 0:
            ours.close()
            control.close()
            _judge_until_death(reward, context, theirs)
        theirs.close()
        alive = os.pidfd_open(judging)
        with contextlib.suppress(OSError):
            socket.send_fds(control, [b"j"], [ours.fileno(), alive])
        ours.close()
        watched = select.poll()
        watched.register(alive, select.POLLIN)
        watched.register(control, select.POLLIN)  # nothing more comes from there but its end
        gone = any(which == control.fileno() for which, _ in watched.poll())
        if gone:
            signal.pidfd_send_signal(alive, signal.SIGKILL)
        os.waitid(os.P_PID, judging, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(OSError):
            os.killpg(judging, signal.SIGKILL)  # what it has started; not reaped yet, its number is still its own
        os.waitpid(judging, 0)
        os.close(alive)
        if gone:
            return


def _nothing() -> None:
    """What a judge needs to be closed, mostly."""


def _judge_until_death(reward: Reward, context: Context, trainer: socket.socket) -> None:
    try:
        os.setsid()
        judge = reward.open(context)
        _send(trainer, _READY)
        while True:
            answers = pickle.loads(_receive(trainer))
            _send(trainer, _judged(judge, answers))
    finally:
        os._exit(0)


def _judged(judge: Judge, answers: Sequence[Answer]) -> bytes:
    try:
        verdicts = [(verdict.outcome, float(verdict.value), verdict.why) for verdict in judge.judge(answers)]
        if len(verdicts) != len(answers):
            raise ValueError(f"the judge gave {len(verdicts)} verdicts on {len(answers)} answers")
        return json.dumps({"verdicts": verdicts}, allow_nan=False).encode()
    except Exception as error:
        return json.dumps({"problem": f"{type(error).__name__}: {error}"[:500]}).encode()


def _send(to: socket.socket, message: bytes, deadline: float | None = None) -> None:
    if deadline is not None:
        to.settimeout(max(1e-6, deadline - time.monotonic()))
    to.sendall(struct.pack("<Q", len(message)) + message)


def _receive(source: socket.socket, deadline: float | None = None) -> bytes:
    (length,) = struct.unpack("<Q", _exactly(source, 8, deadline))
    return _exactly(source, length, deadline)


def _exactly(source: socket.socket, count: int, deadline: float | None) -> bytes:
    read = bytearray()
    while len(read) < count:
        if deadline is not None:
            source.settimeout(max(1e-6, deadline - time.monotonic()))
        piece = source.recv(min(count - len(read), 1 << 20))
        if not piece:
            raise OSError("the other side is gone")
        read += piece
    return bytes(read)
