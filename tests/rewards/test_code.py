from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from made_answers import CONTEXT, answer

import outlay
from outlay.errors import InputError
from outlay.rewards import Code, Verdict, sandbox
from outlay.rewards.code import Case, CodeJudge, program_of, read_tests, same_output, same_value
from outlay.rewards.sandbox import LEVELS, Limits, Outcome, Program, Sandbox
from outlay.testing import check_reward

SUMS = [{"input": "3 4\n", "output": "7\n"}, {"input": "10 -4\n", "output": "6\n"}]
LIMITS = Limits(seconds=2.0, cpu=1, memory=128, processes=4, disk=4, file=2, files=32, output=10_000)
SUM = "a, b = map(int, input().split())\nprint(a + b)"


@cache
def trouble(level: str) -> str:
    try:
        Sandbox(LIMITS, 1, (level,)).close()
    except InputError as error:
        return str(error)
    return ""


def skip_without(level: str) -> None:
    """Skip where the machine does not give a level of protection; which it must be able to name."""
    if trouble(level):
        pytest.skip(trouble(level))


@pytest.fixture(scope="module", params=LEVELS)
def judge(request: pytest.FixtureRequest) -> Iterator[CodeJudge]:
    """A judge under either protection."""
    skip_without(request.param)
    judge = Code(level=request.param, seconds=1.5, cpu=1, memory=128, workers=2).open(CONTEXT)
    assert judge.protection == request.param
    yield judge
    judge.close()


def verdict(judge: CodeJudge, source: str, tests: Any = SUMS) -> Verdict:
    return judge.judge([answer(source, extra={"tests": tests})])[0]


def test_right_wrong_and_crashing_programs(judge: CodeJudge) -> None:
    answers = [
        answer(text, extra={"tests": SUMS})
        for text in (SUM, f"I add.\n```python\n{SUM}\n```\n", "print(7)", "1/0", "print(", SUM + "\nexit(3)", "", "\0", "\udc80")
    ]
    found = judge.judge(answers)
    assert [one.outcome for one in found] == ["passed"] * 2 + ["failed"] * 7
    assert [one.value for one in found] == [1.0] * 2 + [0.0] * 7
    assert [one.why for one in found[2:4]] == ["test 1: wrong result", "test 0: ZeroDivisionError: division by zero"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("while True: pass", "test 0: "),
        ("import time\ntime.sleep(60)", "test 0: not done after 1.5 s"),
        ("x = bytearray(1 << 28)", "test 0: MemoryError"),
        ("while True: print('x' * 1000)", "test 0: wrote more than 1048576 bytes"),
        ("import os\nos._exit(0)", "test 0: wrong result"),
        ("import os\nos.kill(os.getpid(), 9)\nos._exit(5)", "test 0: "),
        (SUM + "\nimport ctypes, sys\nsys.stdout.flush()\nctypes.string_at(0)", "test 0: ended by signal 11"),
    ],
)
def test_a_program_that_is_ended_at_a_limit_has_failed(judge: CodeJudge, source: str, why: str) -> None:
    begin = time.monotonic()
    found = verdict(judge, source)
    assert found.outcome == "failed" and found.why.startswith(why), found
    assert time.monotonic() - begin < 1.5 + 1.0


def test_calls_compare_values_and_types(judge: CodeJudge) -> None:
    source = "def twice(x):\n    print('noise')\n    return x * 2\n\nif __name__ == '__main__':\n    raise SystemExit(1)"
    right = [("twice(4)", 8), ("twice([1, (2,)])", [1, (2,), 1, (2,)]), ("{twice(1): {2.5}}", {2: {2.5}}), ("twice(10**400)", 2 * 10**400)]
    right += [("twice('é')", "éé"), ("None", None), ("twice(1) == 2", True), ("float('inf')", float("inf")), ("twice(2.0)", 4)]
    wrong = [("twice(4)", 9), ("twice((1,))", [1, 1]), ("twice", 1), ("twice(0.1)", 0.2000001), ("unknown()", None), ("float('nan')", 0.0)]
    for tests, outcome in ((right, "passed"), (wrong, "failed")):
        for call, value in tests:
            assert verdict(judge, source, [{"call": call, "equals": value}]).outcome == outcome, call
    assert verdict(judge, source, ["assert twice(2) == 4", {"assert": "twice('a') == 'aa'"}]).outcome == "passed"
    assert verdict(judge, source, ["assert twice(2) == 5"]).outcome == "failed"
    # a value that claims to equal everything is no plain value
    always = "class Always:\n    def __eq__(self, other): return True\ndef twice(x): return Always()"
    assert verdict(judge, always, [{"call": "twice(1)", "equals": 2}]).outcome == "failed"


def test_every_test_runs_the_program_anew(judge: CodeJudge) -> None:
    source = "import sys, builtins\nbuiltins.seen = getattr(builtins, 'seen', 0) + 1\nprint(builtins.seen, len(sys.stdin.read()))"
    assert verdict(judge, source, [{"input": "x" * n, "output": f"1 {n}"} for n in (0, 1, 100_000)]).outcome == "passed"


def test_tests_that_are_missing_or_cannot_be_read_leave_the_answer_unjudged(judge: CodeJudge) -> None:
    wrong: list[Any] = [
        None,
        [],
        "x",
        [{}],
        [{"input": "3"}],
        [{"input": 3, "output": "3"}],
        ["assert f(1)"],
        ["f(1) == g(2)"],
        [7],
        ["f("],
    ]
    wrong += [[{"input": "", "output": "", "equals": 3}], [*SUMS, {"output": ""}], ["1 < 2 == True"]]
    for tests in wrong:
        found = verdict(judge, SUM, tests)
        assert found.outcome == "unjudged" and found.value == 0.0 and "test" in found.why, tests
    assert judge.judge([answer(SUM)])[0].outcome == "unjudged"


def test_programs_have_the_standard_library_and_nothing_of_ours(judge: CodeJudge) -> None:
    source = "import json, wave, sqlite3, zlib, hashlib, threading\nt = threading.Thread(target=print, args=('in a thread',))\nt.start()"
    assert verdict(judge, source, [{"input": "", "output": "in a thread"}]).outcome == "passed"
    for name in ("torch", "numpy", "outlay"):
        assert "ModuleNotFoundError" in verdict(judge, f"import {name}").why
    source = "import os, sys\nopen('/proc/self/environ')"
    assert verdict(judge, source, [{"input": "", "output": ""}]).why.startswith(("test 0: FileNotFound", "test 0: PermissionError"))
    assert (
        verdict(judge, source.split("\n")[0] + "\nprint(len(os.environ), sys.argv)", [{"input": "", "output": "0 ['program.py']"}]).value
        == 1
    )


def test_the_same_program_gets_the_same_random_numbers_and_hashes() -> None:
    source = "import random\nprint(random.random(), hash('a'), list({'x', 'y', 'z'}))"
    outputs = set()
    for _ in range(2):  # two keepers
        box = Sandbox(LIMITS, 1)
        outputs.add(next(box.run(iter([(0, Program(source, ""))])))[1].out)
        box.close()
    assert len(outputs) == 1 and outputs != {b""}


def outputs(sources: list[str], level: str, limits: Limits = LIMITS) -> list[str]:
    skip_without(level)
    box = Sandbox(limits, 1, (level,))
    try:
        return [outcome.out.decode() for _, outcome in box.run((i, Program(source, "")) for i, source in enumerate(sources))]
    finally:
        box.close()


def test_limits_are_those_that_were_asked_for() -> None:
    written = "import os\nn = 0\nf = open('x', 'wb', 0)\ntry:\n    while 1: n += f.write(b'x' * 65536)\nexcept OSError: print(n)"
    many = (
        "n = 0\nwhile n < 64:\n    with open(str(n), 'wb') as f:\n        try:\n            f.write(b'x' * (1 << 20)); f.flush()\n"
        "        except OSError: break\n    n += 1\nprint(n)"
    )
    opened = "x = []\ntry:\n    while 1: x.append(open('/dev/null'))\nexcept OSError: print(x[-1].fileno())"
    forked = (
        "import os, time\nn = 1\nfor _ in range(20):\n    try:\n        if os.fork() == 0: time.sleep(9)\n        n += 1\n"
        "    except OSError: break\nprint(n, flush=True)\nos._exit(0)"
    )
    took = "x = []\ntry:\n    while 1: x.append(bytearray(1 << 20))\nexcept MemoryError: n = len(x); x = None; print(64 < n < 128)"
    found = outputs([written, many, opened, forked, took], "namespaces")
    # the last of four files of 1 MiB does not fit: the folder itself takes a little
    assert found[0] == f"{2 << 20}\n" and found[1] in ("3\n", "4\n") and found[2:] == ["31\n", "4\n", "True\n"]


def test_under_landlock_a_program_is_alone() -> None:
    cannot = "import os\ntry:\n    {}\n    print('could')\nexcept OSError as error:\n    print(type(error).__name__)"
    deeds = ["os.fork()", "open('x', 'w')", "os.listdir('/')", "os.kill(os.getppid(), 0)", "os.chmod('/tmp', 0)", "open('/etc/passwd')"]
    assert outputs([cannot.format(deed) for deed in deeds], "landlock") == ["PermissionError\n"] * len(deeds)
    assert outputs([cannot.format("os.kill(os.getpid(), 0)")], "landlock") == ["could\n"]


@pytest.mark.parametrize("level", LEVELS)
def test_the_filter_holds_under_either(level: str) -> None:
    source = "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\nprint([(l.syscall(*c), ctypes.get_errno()) for c in {}])"
    unshare, ptrace, memfd, shmget, bpf = (272, 0x10000000), (101, 0, 0, 0, 0), (319, b"x", 0), (29, 0, 4096, 0o1600), (321, 0, 0, 0)
    parent_death, others_limits, socket, x32 = (157, 1, 0, 0, 0, 0), (302, 1, 0, 0, 0), (41, 2, 1, 0), (0x40000000 | 39,)
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers above are those of x86_64")
    calls = [unshare, ptrace, memfd, shmget, bpf, parent_death, others_limits, socket, x32]
    assert outputs([source.format(calls)], level) == [str([(-1, 1)] * len(calls)) + "\n"]


@pytest.mark.parametrize(
    ("kinds", "whole", "shares"),
    [
        (("wrong", "lost"), "failed", "unjudged"),
        (("lost", "wrong"), "failed", "unjudged"),
        (("right", "lost"), "unjudged", "unjudged"),
        (("right", "wrong"), "failed", "failed"),
    ],
)
def test_without_shares_one_failure_is_enough_whatever_the_sandbox_lost(
    kinds: tuple[str, str], whole: str, shares: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = {"right": Outcome("ended", 0, b"7\n"), "wrong": Outcome("ended", 0, b"8\n"), "lost": Outcome("lost", why="gone")}
    for partial, expected in ((False, whole), (True, shares)):
        judge = Code(partial=partial).open(CONTEXT)
        monkeypatch.setattr(judge._sandbox, "run", lambda programs: ((key, came[kinds[key[1]]]) for key, _ in programs))
        found = judge.judge([answer("print(7)", extra={"tests": [{"input": "", "output": "7"}] * 2})])
        judge.close()
        assert [one.outcome for one in found] == [expected]


def test_partial_is_the_share_of_tests_passed() -> None:
    judge = Code(partial=True, workers=2).open(CONTEXT)
    tests = [{"input": f"{n} 1", "output": str(n + 1)} for n in (3, 4, 5, 6)]
    found = judge.judge([answer(text, extra={"tests": tests}) for text in (SUM, "print(5)", "print('x')")])
    assert [(one.outcome, one.value) for one in found] == [("passed", 1.0), ("failed", 0.25), ("failed", 0.0)]
    assert found[1].why.startswith("test 0")
    judge.close()


def test_keepers_are_replaced_and_what_they_ran_is_unjudged() -> None:
    judge = Code(seconds=20.0).open(CONTEXT)
    assert verdict(judge, SUM).outcome == "passed"
    keeper = judge._sandbox._idle[0]
    keeper._process.kill()
    keeper._process.wait()
    assert verdict(judge, SUM).outcome == "unjudged"
    assert verdict(judge, SUM).outcome == "passed"
    judge.close()


def test_closing_and_the_end_of_the_trainer_end_the_keepers(tmp_path: Path) -> None:
    book = tmp_path / "book"
    script = f"""
import os, signal
from outlay.context import Context
from outlay.rewards import Code
judge = Code().open(Context(seed=0))
open({str(book)!r}, "w").write(str(judge._sandbox._idle[0]._process.pid))
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert ended.returncode == -9
    keeper = Path(f"/proc/{book.read_text()}/cmdline")
    for _ in range(200):
        if not keeper.exists() or not keeper.read_bytes():
            return
        time.sleep(0.02)
    raise AssertionError("the keeper outlives the trainer")


def test_where_no_protection_can_be_had_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(InputError, match="this system is darwin, and Linux is needed"):
        Code().open(CONTEXT)
    monkeypatch.undo()
    monkeypatch.setattr(sandbox, "_TRIAL", "import threading\n{more}raise RuntimeError('no luck')")
    with pytest.raises(InputError, match="namespaces: the trial program failed .RuntimeError: no luck.; landlock: the trial"):
        Code().open(CONTEXT)


def test_program_of() -> None:
    assert program_of("print(1)") == "print(1)"
    assert program_of("a\n```python\nx = 1\n```\nb\n```py\nx = 2\ny = 3\n```\nprints\n```\n2\n```\n") == "x = 2\ny = 3\n"
    assert program_of("```text\nno\n```\nand\n```\nx = 1\n```") == "x = 1\n"
    assert program_of("```json\n{}\n```") == "```json\n{}\n```"
    assert program_of("  ```Python\nx = 1") == "x = 1\n"


def test_read_tests() -> None:
    assert read_tests({"tests": [{"input": "1", "output": "2"}, {"call": "f(1)", "equals": [2]}, "assert f( 1 ) == (2, -3)"]}) == [
        Case("1", "2", call=False),
        Case("f(1)", [2], call=True),
        Case("f(1)", (2, -3), call=True),
    ]


def test_comparing() -> None:
    assert same_output("a  \nb\n\n", "a\nb", 0.0) and same_output("", "\n", 0.0)
    assert not same_output("a\n\nb", "a\nb", 0.0) and not same_output(" a", "a", 0.0) and not same_output("1.0", "1", 0.0)
    assert same_output("x 1.0004 nan", "x 1 nan", 1e-3) and not same_output("1.004", "1", 1e-3) and not same_output("1 2", "1", 1e-3)
    assert same_output("100.05", "100", 1e-3) and not same_output("x", "1", 1e-3)
    assert same_value([1.0004, (2,), {"a": 3}], [1, (2,), {"a": 3.0001}], 1e-3) and not same_value([1.0004], [1], 0.0)
    assert not same_value([1], (1,), 0.0) and not same_value({"a": 1}, {"b": 1}, 1.0) and not same_value("1", 1, 1.0)
    assert same_value(10**400, 10**400, 0.0) and not same_value(10**400, 1.5, 0.1)


def test_contract_and_recipe() -> None:
    answers = [answer(text, group=group, extra={"tests": SUMS}) for group in (0, 1) for text in (SUM, "print(7)")]
    for reward in (Code(), Code(partial=True, workers=2)):
        check_reward(reward, [*answers, answer(SUM, group=2)])
    assert outlay.make("rewards/code", partial=True, seconds=2) == Code(partial=True, seconds=2.0)
    with pytest.raises(InputError, match="accepted: best, namespaces, landlock"):
        outlay.make("rewards/code", level="none")
    for fields in ({"seconds": 0.0}, {"memory": 10}, {"workers": 0}, {"files": 3}, {"tolerance": -1.0}, {"level": "x"}):
        with pytest.raises(ValueError, match="must be"):
            Code(**fields)  # type: ignore[arg-type]
