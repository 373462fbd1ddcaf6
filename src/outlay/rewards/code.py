"""Code: an answer is a Python program, and its reward is whether it passes its tests."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Verdict, unjudged
from outlay.rewards.sandbox import LEVELS, Limits, Outcome, Program, Sandbox
from outlay.schedules.base import require

_PYTHON = ("python", "python3", "py")
_LOST = "lost"


@dataclass(frozen=True)
class Case:
    """One test: what is given to the program, and what must come of it.

    Args:
        given: standard input; with ``call``, an expression over the program's names.
        wanted: standard output; with ``call``, the expression's value.
        call: which of the two it is.
    """

    given: str
    wanted: Any
    call: bool


def read_tests(extra: Mapping[str, Any]) -> list[Case]:
    """Read a question's tests.

    ``extra["tests"]`` is a list whose items are written in one of three ways:

    - ``{"input": "3 4\\n", "output": "7\\n"}``: standard input and output;
    - ``{"call": "add(3, 4)", "equals": 7}``: an expression over the program's names, and its value as a plain value;
    - ``{"assert": "add(3, 4) == 7"}`` or the bare text ``"assert add(3, 4) == 7"``: the same as one comparison, whose right side is a literal.

    Raises:
        ValueError: when there are none or one is written otherwise; it says which.
    """
    tests = extra.get("tests")
    if not isinstance(tests, Sequence) or isinstance(tests, str) or not tests:
        raise ValueError(f"a program needs tests, found {str(tests)[:80]}")
    return [_read_test(test, f"tests[{i}]") for i, test in enumerate(tests)]


def _read_test(test: Any, where: str) -> Case:
    test = {"assert": test} if isinstance(test, str) else test
    match test:
        case {"input": str(given), "output": str(wanted)} if len(test) == 2:
            return Case(given, wanted, call=False)
        case {"call": str(given), "equals": wanted} if len(test) == 2:
            return Case(given, wanted, call=True)
        case {"assert": str(text)} if len(test) == 1:
            return _read_assert(text.strip(), where)
    raise ValueError(f"{where} must hold input and output, call and equals, or assert, found {str(test)[:80]}")


def _read_assert(text: str, where: str) -> Case:
    try:
        compared = ast.parse(text.removeprefix("assert ").strip(), mode="eval").body
        if isinstance(compared, ast.Compare) and [type(sign) for sign in compared.ops] == [ast.Eq]:
            return Case(ast.unparse(compared.left), ast.literal_eval(compared.comparators[0]), call=True)
    except (SyntaxError, ValueError):
        pass
    raise ValueError(f"{where} must compare an expression with a literal by ==, found {text[:80]!r}")


def program_of(text: str) -> str:
    """Return the last block fenced as Python, else the last fenced without a language, else the whole text. The last fence may be left open."""
    blocks: list[tuple[str, list[str]]] = []
    inside = False
    for line in text.splitlines():
        mark = line.strip()
        if mark.startswith("```"):
            inside = not inside
            if inside:
                blocks.append((mark.strip("`").strip().lower(), []))
        elif inside:
            blocks[-1][1].append(line)
    for languages in (_PYTHON, ("",)):
        fitting = [lines for language, lines in blocks if language in languages]
        if fitting:
            return "\n".join(fitting[-1]) + "\n"
    return text


@dataclass(frozen=True)
class Code:
    """Whether the Python program in the answer passes the question's tests: value = 1 if all pass, else 0; or the share that pass.

    The program is the answer's last fenced block (``program_of``), else the whole answer. Tests are read from
    ``question.extra["tests"]``; ``read_tests`` tells how they are written. Every test runs the program anew, in a sandbox outside of this process
    (``outlay.rewards.sandbox``), which gets the input alone: what is expected is compared here, so that no program can read it. Output is compared
    line by line without blanks at the ends of lines and of the whole; values are compared by type, element by element.

    A program that is wrong, crashes, or is ended at a limit has failed. ``unjudged`` are answers whose tests are missing or cannot be read, and
    those on which the sandbox itself failed. Programs have Python's standard library and nothing else, see the same hash seed and random seed
    each time, and can start no other program.

    Args:
        partial: the value is the share of tests passed, in [0, 1], instead of 1 for all and 0 otherwise; a verdict is ``passed`` only for all.
        tolerance: numbers are equal when they differ by at most this, absolutely or relatively, >= 0; 0 compares exactly.
        seconds: wall time of one test, > 0.
        cpu: processor time of one test, whole seconds of each process, >= 1.
        memory: MiB of address space of each process, >= 64; all together a program may take ``processes`` times this, and ``disk``.
        processes: processes and threads of a program at a time, >= 1; under ``landlock`` it has a single process, and threads as memory allows.
        disk: MiB of the scratch folder, which lies in memory, >= 1; under ``landlock`` no file can be written.
        file: MiB of the largest file, >= 1.
        files: files open at a time, >= 8.
        output: bytes to standard output and error together, >= 1; a program that writes more is ended and has failed.
        workers: programs that run at a time, >= 1.
        level: protection that programs run under (see ``outlay.rewards.sandbox``): ``namespaces``, ``landlock``, or the ``best`` that can be had,
            in this order; which one that is, is the judge's ``protection``.
    """

    title: ClassVar[str] = "Program tests"
    paper: ClassVar[Paper | None] = None

    partial: bool = False
    tolerance: float = 0.0
    seconds: float = 5.0
    cpu: int = 5
    memory: int = 512
    processes: int = 4
    disk: int = 16
    file: int = 8
    files: int = 64
    output: int = 1 << 20
    workers: int = 1
    level: Literal["best", "namespaces", "landlock"] = "best"

    def __post_init__(self) -> None:
        require(0 <= self.tolerance < math.inf, f"tolerance must be a finite number >= 0, found {self.tolerance}")
        require(0 < self.seconds < math.inf, f"seconds must be finite and > 0, found {self.seconds}")
        for name, least in (("cpu", 1), ("processes", 1), ("disk", 1), ("file", 1), ("files", 8), ("output", 1), ("workers", 1)):
            require(getattr(self, name) >= least, f"{name} must be >= {least}, found {getattr(self, name)}")
        require(self.memory >= 64, f"memory must be >= 64 MiB, found {self.memory}")
        require(self.level in ("best", *LEVELS), f"level must be best, namespaces or landlock, found {self.level!r}")

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def open(self, context: Context) -> CodeJudge:
        """Start the sandbox and try it.

        Raises:
            InputError: when no accepted protection can be had here.
        """
        return CodeJudge(self)


class CodeJudge:
    """Program tests, opened; ``protection`` names the level that programs run under."""

    def __init__(self, reward: Code) -> None:
        self._reward = reward
        limits = Limits(
            seconds=reward.seconds,
            cpu=reward.cpu,
            memory=reward.memory,
            processes=reward.processes,
            disk=reward.disk,
            file=reward.file,
            files=reward.files,
            output=reward.output,
        )
        self._sandbox = Sandbox(limits, reward.workers, LEVELS if reward.level == "best" else (reward.level,))

    @property
    def protection(self) -> str:
        """The level of protection."""
        return self._sandbox.protection

    def close(self) -> None:
        """End the sandbox."""
        self._sandbox.close()

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Run every answer's program on its tests, several at a time; without ``partial`` an answer's tests end at the first that fails."""
        tests: list[list[Case]] = []
        troubles: dict[int, str] = {}
        for i, answer in enumerate(answers):
            try:
                tests.append(read_tests(answer.question.extra))
            except ValueError as error:
                tests.append([])
                troubles[i] = str(error)
        failures: dict[int, dict[int, str]] = {}

        def programs() -> Iterator[tuple[tuple[int, int], Program]]:
            for i, answer in enumerate(answers):
                source = program_of(answer.text)
                for j, test in enumerate(tests[i]):
                    if not self._reward.partial and i in failures:
                        break
                    yield (i, j), Program(source, test.given, test.call)

        for (i, j), outcome in self._sandbox.run(programs()):
            why = self._wrong(tests[i][j], outcome)
            if outcome.kind == _LOST:
                troubles[i] = outcome.why
            elif why:
                failures.setdefault(i, {})[j] = f"test {j}: {why}"
        return [self._verdict(len(tests[i]), failures.get(i, {}), troubles.get(i)) for i in range(len(answers))]

    def _verdict(self, tests: int, failures: dict[int, str], trouble: str | None) -> Verdict:
        # without shares one failure is enough, whatever became of the other tests
        if trouble is not None and (self._reward.partial or not failures):
            return unjudged(trouble)
        if failures:
            return Verdict("failed", 1.0 - len(failures) / tests if self._reward.partial else 0.0, failures[min(failures)])
        return Verdict("passed", 1.0)

    def _wrong(self, test: Case, outcome: Outcome) -> str:
        if outcome.kind == "late":
            return f"not done after {self._reward.seconds:g} s"
        if outcome.kind == "output":
            return f"wrote more than {self._reward.output} bytes"
        if outcome.code != 0:
            last = outcome.err.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1][:200]
            return last or (f"ended by signal {-outcome.code}" if outcome.code < 0 else f"exit code {outcome.code}")
        try:
            right = (
                same_value(_value(json.loads(outcome.out)), test.wanted, self._reward.tolerance)
                if test.call
                else same_output(outcome.out.decode("utf-8", "replace"), test.wanted, self._reward.tolerance)
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            right = False  # no value came, or none that can be compared
        return "" if right else "wrong result"


def same_output(found: str, wanted: str, tolerance: float) -> bool:
    """Compare texts line by line without blanks at the ends; with a tolerance, word by word, as numbers where both are."""
    ours, theirs = ([line.rstrip() for line in text.rstrip().split("\n")] for text in (found, wanted))
    if ours == theirs:
        return True
    if not tolerance or len(ours) != len(theirs):
        return False
    lines = [(one.split(), other.split()) for one, other in zip(ours, theirs, strict=True)]
    return all(len(one) == len(other) and all(_same_word(a, b, tolerance) for a, b in zip(one, other, strict=True)) for one, other in lines)


def _same_word(found: str, wanted: str, tolerance: float) -> bool:
    if found == wanted:
        return True
    try:
        return _close(float(found), float(wanted), tolerance)
    except ValueError:
        return False


def _close(one: float, other: float, tolerance: float) -> bool:
    try:
        return one == other or (tolerance > 0 and math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance))
    except OverflowError:
        return False


def same_value(found: Any, wanted: Any, tolerance: float) -> bool:
    """Compare plain values as ``==`` does, but numbers within the tolerance, wherever they stand in lists, tuples and mappings."""
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return _close(found, wanted, tolerance)
    if isinstance(wanted, list | tuple) and isinstance(found, type(wanted)):
        return len(found) == len(wanted) and all(same_value(a, b, tolerance) for a, b in zip(found, wanted, strict=True))
    if isinstance(wanted, dict) and isinstance(found, dict):
        return found.keys() == wanted.keys() and all(same_value(found[key], wanted[key], tolerance) for key in wanted)
    return bool(found == wanted)


def _value(plain: Any) -> Any:
    """Return the value that the sandbox wrote as JSON with its types."""
    match plain:
        case None | bool() | str():
            return plain
        case list():
            return [_value(item) for item in plain]
        case {"i": str(text)}:
            return int(text, 16)
        case {"f": str(text)}:
            return float.fromhex(text)
        case {"t": list(items)}:
            return tuple(_value(item) for item in items)
        case {"s": list(items)}:
            return {_value(item) for item in items}
        case {"d": list(items)}:
            return {_value(key): _value(item) for key, item in items}
    raise ValueError(f"no plain value: {str(plain)[:80]}")
