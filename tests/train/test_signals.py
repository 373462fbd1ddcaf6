"""Signals: the first asks to stop in good order, a second Ctrl-C ends the process at once, and handlers are put back."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from small_runs import child, wait

from outlay.train.signals import INTERRUPTED, Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_and_handlers_are_put_back(number: signal.Signals) -> None:
    seen: list[int] = []
    before = signal.signal(number, lambda got, _: seen.append(got))
    try:
        with Signals() as signals:
            assert not signals.stop and signals.name == ""
            os.kill(os.getpid(), number)
            assert signals.stop and signals.name == number.name
            assert seen == []
        os.kill(os.getpid(), number)
        assert seen == [number]
    finally:
        signal.signal(number, before)


def test_handlers_are_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), Signals():
        assert signal.getsignal(signal.SIGTERM) != before
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) == before


def _receive(*numbers: signal.Signals) -> None:
    with Signals() as signals:
        for number in numbers:
            os.kill(os.getpid(), number)
        os._exit(7 if signals.stop else 8)


@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ((signal.SIGINT,), 7),
        ((signal.SIGINT, signal.SIGINT), INTERRUPTED),
        ((signal.SIGTERM, signal.SIGTERM), 7),  # what sends these twice is a scheduler, not an impatient person
        ((signal.SIGTERM, signal.SIGINT), INTERRUPTED),
        ((signal.SIGINT, signal.SIGTERM), 7),
    ],
)
def test_a_second_interrupt_ends_the_process_at_once(numbers: tuple[signal.Signals, ...], status: int) -> None:
    assert wait(child(lambda: _receive(*numbers))) == status
    assert INTERRUPTED == 130


def test_outside_the_main_thread_nothing_is_caught() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def enter() -> None:
        with Signals() as signals:
            seen.extend([signal.getsignal(signal.SIGTERM), signals.stop])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before, False]
