"""The keeper: a small process of the standard library that forks one shut-in child a program and sees to it that the child ends.

Run by path, never imported: ``python -s -S keeper.py SOCKET LEVEL LIMITS``. It holds neither programs nor their input: those reach the child as
file descriptors, and what is expected of the output stays with the trainer.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback
import types

import confine

_LARGEST_MESSAGE = 4096
_exit = os._exit  # a program may put another function in its place
_CANNOT_GO_ON = 120  # what Python itself exits with when it cannot write its output


#: what programs import most, read once here and not by every program
_COMMON = (
    "array bisect cmath collections copy dataclasses datetime decimal enum fractions functools heapq io itertools math operator queue re "
    "statistics string textwrap typing"
)


def main() -> None:
    """Enter the protection that the arguments name, say so, and serve."""
    control = socket.socket(fileno=int(sys.argv[1]))
    limits = confine.Limits(**json.loads(sys.argv[3]))
    level = {"namespaces": confine.Namespaces, "landlock": confine.Landlock}[sys.argv[2]]()
    try:
        missing = confine.filters.supported()
        if missing:
            raise OSError(missing)
        level.enter()
    except OSError as error:
        _say(control, {"problem": str(error)})
        return
    for name in _COMMON.split():
        importlib.import_module(name)
    os.environ.clear()
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    gc.collect()
    gc.freeze()  # so that collecting in a child does not copy the keeper's pages
    _say(control, {"ready": level.name})
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _LARGEST_MESSAGE, 4)
        if not message:
            return
        if message == b"k":
            continue  # it came too late: the program has ended by itself
        try:
            answer = _serve(control, level, limits, call=message == b"c", descriptors=descriptors)
        except OSError as error:
            answer = {"problem": str(error)}
        for descriptor in descriptors:
            os.close(descriptor)
        _say(control, answer)


def _say(control: socket.socket, what: dict) -> None:  # type: ignore[type-arg]
    control.send(json.dumps(what).encode())


def _serve(control: socket.socket, level, limits, call: bool, descriptors: list[int]) -> dict:  # type: ignore[no-untyped-def, type-arg]
    """Fork the program, wait for its end or end it; return how it went."""
    reading, writing = os.pipe()
    try:
        child = level.fork()
        if child == 0:
            _become(level, limits, call, descriptors, writing)
    finally:
        os.close(writing)
    with open(reading, "rb") as ready:
        problem = ready.read().decode(errors="replace")
    begin = time.monotonic()
    late = asked = False
    ended = os.pidfd_open(child)
    watched = select.poll()
    watched.register(ended, select.POLLIN)
    watched.register(control, select.POLLIN)
    while True:
        left = begin + limits.seconds - time.monotonic()
        events = dict(watched.poll(max(0.0, left) * 1000))
        if ended in events:
            break
        gone = control.fileno() in events and not (asked := control.recv(1) == b"k")
        late = not events
        if late or gone or asked:
            signal.pidfd_send_signal(ended, signal.SIGKILL)
            select.select([ended], [], [])
            if gone:
                os._exit(0)
            break
    os.close(ended)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return {"problem": problem} if problem else {"code": code, "late": late, "seconds": time.monotonic() - begin}


def _become(level, limits, call: bool, descriptors: list[int], ready: int) -> None:  # type: ignore[no-untyped-def]
    """In the child: shut oneself in, then become the program; never returns."""
    report = ready
    try:
        os.setsid()
        source = os.pread(descriptors[0], os.fstat(descriptors[0]).st_size, 0)
        expression = os.pread(descriptors[1], os.fstat(descriptors[1]).st_size, 0) if call else b""
        places = [os.open(os.devnull, os.O_RDONLY), descriptors[3], descriptors[3]] if call else descriptors[1:]
        kept = [os.dup2(place, 200 + i) for i, place in enumerate([*places, descriptors[2], ready])]
        for i, place in enumerate(kept):
            os.dup2(place, i)
        report = 4
        os.closerange(5, 1 << 20)
        level.shut(limits)
        os.close(4)
        if not call:
            os.close(3)
    except BaseException as error:
        os.write(report, f"{type(error).__name__}: {error}".encode())
        _exit(_CANNOT_GO_ON)
    code = _CANNOT_GO_ON
    try:
        code = _run(source.decode(), expression.decode())
    finally:
        _exit(code)


def _run(source: str, expression: str) -> int:
    """Run the program as a main module; with an expression, evaluate it in the program and write its value to descriptor 3."""
    random.seed(0)  # the same program gets the same verdict
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    for stream in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{stream}__", getattr(sys, stream))
    sys.argv = ["program.py"]
    name = "program" if expression else "__main__"
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    code = 0
    try:
        exec(compile(source, "program.py", "exec", dont_inherit=True), module.__dict__)
        if expression:
            value = eval(compile(expression, "call", "eval", dont_inherit=True), module.__dict__)
            text = json.dumps(_plain(value)).encode()
            while text:
                text = text[os.write(3, text) :]
    except SystemExit as error:
        if isinstance(error.code, int | None):
            code = (error.code or 0) & 255
        else:
            print(error.code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        return _CANNOT_GO_ON
    return code


def _plain(value: object) -> object:
    """Return a value as JSON can hold it, types kept; see ``outlay.rewards.code`` for the way back."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return {"i": hex(value)}
    if isinstance(value, float):
        return {"f": value.hex()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return {"t": [_plain(item) for item in value]}
    if isinstance(value, set | frozenset):
        return {"s": [_plain(item) for item in value]}
    if isinstance(value, dict):
        return {"d": [[_plain(key), _plain(item)] for key, item in value.items()]}
    raise TypeError(f"a {type(value).__name__} is no plain value")


main()
