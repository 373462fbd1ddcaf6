"""Signals: SIGTERM and Ctrl-C end a run in good order; a second Ctrl-C ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

#: exit status of a process that a second Ctrl-C ended
INTERRUPTED = 130


class Signals:
    """``with Signals() as signals:`` catches SIGTERM and SIGINT and sets ``signals.stop``; handlers are put back after.

    Outside the main thread nothing is caught and ``stop`` stays False.
    """

    def __init__(self) -> None:
        self.stop = False
        self.name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, _: FrameType | None) -> None:
        if self.stop and number == signal.SIGINT:
            os._exit(INTERRUPTED)  # checkpoints are committed by rename, so whatever is cut off here leaves them whole
        self.stop = True
        self.name = signal.Signals(number).name
