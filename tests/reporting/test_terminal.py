"""What is shown while a run runs, and that showing it never ends the run."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from outlay.budget import Budget
from outlay.record import Record
from outlay.reporting.progress import fit
from outlay.reporting.terminal import Display, Heartbeat, LiveLine, Quiet, make_display


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says somebody is watching."""

    def isatty(self) -> bool:
        return True


def step(n: int, *, loss: float = 1.234, stage: str = "sft", outcome: str = "ok", knobs: dict[str, float] | None = None) -> Record:
    chosen = {"lr": 2.1e-3} if knobs is None else knobs
    return Record("step", n, stage, 0.5, loss, 0.7, chosen, outcome="ok" if outcome == "ok" else "skipped")


def heartbeat(budget: str = "100s", every: float = 60.0) -> tuple[Display, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    display = make_display(Console(file=stream, width=100), Budget.parse(budget), "tiny", heartbeat=every, clock=clock)
    assert isinstance(display, Heartbeat)
    display.start(Budget.parse(budget), None)
    return display, stream, clock


def live(monkeypatch: pytest.MonkeyPatch, width: int = 120) -> tuple[Display, Terminal, Clock]:
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = Terminal(), Clock()
    display = make_display(Console(file=stream, width=width, color_system=None), Budget.parse("100s"), "tiny", clock=clock)
    assert isinstance(display, LiveLine)
    return display, stream, clock


def test_heartbeat_comes_early_once_and_then_at_its_pace() -> None:
    display, stream, clock = heartbeat("1000s")
    seen: list[int] = []
    for n in range(1, 301):
        clock.now += 1
        before = stream.tell()
        display.step(step(n), {"seconds": n}, n / 1000, 1000.0 - n)
        if stream.tell() > before:
            seen.append(n)
    assert seen == [5, 65, 125, 185, 245]
    display.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "outlay  tiny  budget 1000s"
    assert len(lines) == 1 + 5 + 1 and "step    300" in lines[-1]  # closing tells the last state
    display.close()
    assert len(stream.getvalue().splitlines()) == 7


def test_heartbeat_pace_is_chosen() -> None:
    display, stream, clock = heartbeat("1000s", every=2.0)
    for n in range(1, 11):
        clock.now += 1
        display.step(step(n), {"seconds": n}, n / 1000, None)
    assert re.findall(r"step +(\d+)", stream.getvalue()) == ["2", "4", "6", "8", "10"]


def test_heartbeat_line_says_it_all_in_steady_columns() -> None:
    display, stream, clock = heartbeat("100s", every=10.0)
    display.step(step(1), {"seconds": 30.0, "tokens": 0.0}, 0.3, 70.0)
    clock.now += 10
    display.step(step(310), {"seconds": 81.7, "tokens": 134_000.0}, 0.817, 18.3)
    clock.now += 10
    display.step(step(1210, loss=0.98, stage="sft"), {"seconds": 91.7, "tokens": 268_000.0}, 0.917, 8.3)
    first, second = stream.getvalue().splitlines()[1:]
    assert first == "outlay   81%    18.3s left  step    310  sft  loss 1.234    lr 2.1e-03  13.4k tok/s   30.9 step/s"
    assert second == "outlay   91%     8.3s left  step   1210  sft  loss 0.98     lr 2.1e-03  13.4k tok/s     90 step/s"
    assert first.index("loss") == second.index("loss") and first.index("tok/s") == second.index("tok/s")


def test_of_a_step_on_rewarded_answers_the_reward_is_told() -> None:
    display, stream, clock = heartbeat("100s", every=10.0)
    clock.now += 10
    told = Record("step", 4, "rewards", 0.5, 0.0003, 0.7, {"lr": 2.1e-3}, metrics={"reward": 0.4375, "entropy": 1.5})
    display.step(told, {"seconds": 50.0}, 0.5, 50.0)
    line = stream.getvalue().splitlines()[-1]
    assert "rewards  reward 0.4375" in line and "loss" not in line


def test_left_is_told_in_the_unit_that_will_end_the_run() -> None:
    display, stream, clock = heartbeat("100s or 1M tokens", every=1.0)
    clock.now += 1
    display.step(step(10, knobs={}), {"seconds": 10.0, "tokens": 600_000.0}, 0.6, 7.0)
    assert stream.getvalue().splitlines()[1].startswith("outlay   60%   400k tokens left  eta 7.0s     step     10  sft  loss 1.234")


def test_given_limits_replace_the_budgets() -> None:
    stream, clock = io.StringIO(), Clock()
    display = make_display(Console(file=stream), clock=clock, heartbeat=1.0)
    display.start(Budget.parse("10s"), {"seconds": 50.0})
    clock.now += 1
    display.step(step(1), {"seconds": 10.0}, 0.2, 40.0)
    assert "40.0s left" in stream.getvalue()


def test_a_skipped_step_has_no_loss_and_odd_numbers_do_no_harm() -> None:
    display, stream, clock = heartbeat("100s", every=1.0)
    for record in (step(2, outcome="skipped"), step(3, loss=float("nan"), knobs={"lr": float("inf"), "batch": 32.0, "n": float("nan")})):
        clock.now += 1
        display.step(record, {"seconds": float("nan")}, float("nan"), float("inf"))
    lines = stream.getvalue().splitlines()[1:]
    assert "skipped" in lines[0] and "loss" not in lines[0]
    assert "loss nan" in lines[1] and "lr inf" in lines[1] and "batch 32 " in lines[1]


def test_long_work_between_steps_keeps_the_log_alive() -> None:
    display, stream, clock = heartbeat("1000s")
    display.step(step(3), {"seconds": 1.0}, 0.001, None)
    for _ in range(70):
        clock.now += 1
        display.doing("eval")
    lines = stream.getvalue().splitlines()[1:]
    assert len(lines) == 2 and all(line.endswith("eval") for line in lines)


def test_no_control_codes_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    display, stream, clock = heartbeat("100s", every=1.0)
    clock.now += 1
    display.step(step(1), {"seconds": 1.0}, 0.01, 99.0)
    display.say("evaluation (start): [red]loss[/red] 1.5\nsecond line")
    display.close()
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()
    assert stream.getvalue().splitlines()[-1] == "outlay  evaluation (start): [red]loss[/red] 1.5 second line"


def test_text_a_stream_cannot_write_is_replaced() -> None:
    raw = io.BytesIO()
    display = make_display(Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True)), Budget.parse("10s"))
    display.say("before → after")
    assert raw.getvalue() == b"outlay  before ? after\n"


def test_dumb_terminals_get_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_display(Console(file=Terminal()), Budget.parse("10s")), Heartbeat)


def test_live_line_is_redrawn_at_most_five_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    display, stream, clock = live(monkeypatch)
    display.start(Budget.parse("100s"), None)
    drawn = 0
    for n in range(1, 1001):
        clock.now += 0.01
        before = stream.tell()
        display.step(step(n), {"seconds": n / 100}, n / 10_000, 100 - n / 100)
        drawn += stream.tell() > before
    display.close()
    assert 45 <= drawn <= 51


def test_live_line_says_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    display, stream, clock = live(monkeypatch)
    display.start(Budget.parse("100s"), None)
    display.step(step(1), {"seconds": 30.0, "tokens": 0.0}, 0.3, 70.0)
    clock.now += 10
    display.step(step(310), {"seconds": 50.0, "tokens": 134_000.0}, 0.5, 50.0)
    clock.now += 1
    display.doing("eval")
    display.say("evaluation (end): [b]exact_match[/b] 0.5")
    display.close()
    frames = [frame for frame in re.split(r"\r|\n", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())) if frame.strip()]
    told = "tiny  ━━━━━━━━━━━━   50%    50.0s left  step    310  sft  loss 1.234    lr 2.1e-03  13.4k tok/s   30.9 step/s"
    assert told in frames
    assert any(frame.endswith("  eval") and "12.2k tok/s" in frame for frame in frames)
    assert "evaluation (end): [b]exact_match[/b] 0.5" in frames
    assert frames[-1].startswith("tiny") and "eval" not in frames[-1]
    assert stream.getvalue().endswith("\x1b[?25h")  # the cursor is shown again


@pytest.mark.parametrize("width", [100, 70, 40])
def test_live_line_never_wraps(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    display, stream, _ = live(monkeypatch, width)
    display.start(Budget.parse("100s"), None)
    display.step(step(310, knobs={f"knob_{k}": 0.1 for k in range(9)}), {"seconds": 50.0, "tokens": 1.0}, 0.5, 50.0)
    display.close()
    frames = re.split(r"\r|\n", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()))
    assert max(map(len, frames)) <= width
    assert "loss 1.234" in frames[-2] if width >= 70 else "50%" in frames[-2]


ROLES = ["name", "bar", "share", "left", "eta", "step", "stage", "loss", "knob", "tokens", "steps"]


@given(st.lists(st.sampled_from(ROLES), unique=True), st.integers(1, 20), st.integers(10, 120))
def test_fitting_keeps_order_and_what_matters(roles: list[str], long: int, width: int) -> None:
    told = [(role, role[0] * long) for role in roles]
    kept = fit(told, width)
    rest = iter(told)
    assert all(field in rest for field in kept)  # in the same order
    essential = {"share", "left", "stage", "loss"}
    assert [field for field in kept if field[0] in essential] == [field for field in told if field[0] in essential]
    dropped = [role for role in ("steps", "name", "knob", "tokens", "eta", "step", "bar") if role in roles]
    gone = len(told) - len(kept)
    assert {role for role, _ in kept} == set(roles) - set(dropped[:gone])  # in this order of importance
    wide = [len(told[:1]) and (len(told) - n) * (long + 2) - 2 for n in (gone, gone - 1)]
    assert wide[0] <= width or gone == len(dropped)
    assert gone == 0 or wide[1] > width  # and no more than needed


@pytest.mark.parametrize("watched", [False, True])
def test_a_step_costs_next_to_nothing(monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    display, _, _ = live(monkeypatch) if watched else heartbeat()
    display.start(Budget.parse("100s"), None)
    record, spent = step(1), {"seconds": 1.0, "tokens": 5.0}
    display.step(record, spent, 0.1, 1.0)
    best = 1.0
    for _ in range(5):
        began = time.process_time()
        for _ in range(4000):
            display.step(record, spent, 0.1, 1.0)
        best = min(best, (time.process_time() - began) / 4000)
    display.close()
    assert best < 50e-6


@pytest.mark.parametrize("watched", [False, True])
def test_a_closed_stream_ends_nothing(monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    out = sys.stdout
    display, stream, clock = live(monkeypatch) if watched else heartbeat()
    display.start(Budget.parse("100s"), None)
    stream.close()
    for n in range(3):
        clock.now += 100
        display.step(step(n), {"seconds": 1.0}, 0.1, 1.0)
        display.doing("eval")
        display.say("still here")
    display.close()
    assert sys.stdout is out  # a live line takes standard output over and must hand it back


def test_nobody_reading_ends_nothing() -> None:
    """Standard output is a pipe whose reader is gone, and looks like a terminal: rich would end the process."""
    code = """
import os, sys, io
from rich.console import Console
from outlay.budget import Budget
from outlay.record import Record
from outlay.reporting.terminal import LiveLine, make_display
class Gone(io.StringIO):
    def isatty(self): return True
    def write(self, text): raise BrokenPipeError(32, "Broken pipe")
    def flush(self): raise BrokenPipeError(32, "Broken pipe")
os.environ["TERM"] = "xterm"
for file in (Gone(), None):
    now = [0.0]
    display = make_display(Console(file=file), Budget.parse("10s"), clock=lambda: now[0])
    assert isinstance(display, LiveLine) == (file is not None)
    display.start(Budget.parse("10s"), None)
    for n in range(5):
        now[0] += 100
        display.step(Record("step", n, "sft", 0.1, 1.0), {"seconds": 1.0}, 0.1, 1.0)
        display.say("x" * 100_000)
    display.close()
print("survived", file=sys.stderr)
os._exit(0)
"""
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(write)
    assert done.returncode == 0 and done.stderr.strip() == "survived", done.stderr


def test_an_exit_that_is_meant_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    display, _, _ = live(monkeypatch)
    assert isinstance(display, LiveLine)

    def leave(*_: object, **__: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(display._console, "print", leave)
    with pytest.raises(SystemExit):
        display.say("a signal arrives meanwhile")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    display: Display = Quiet()
    display.start(Budget.parse("10s"), None)
    display.step(step(1), {}, 0.1, None)
    display.doing("eval")
    display.say("x")
    display.close()
    assert capsys.readouterr() == ("", "")
