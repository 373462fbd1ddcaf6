"""What a run says while it runs: one live line on a terminal, a heartbeat line elsewhere. A display never ends a run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from outlay.budget import Budget
from outlay.record import Record
from outlay.reporting.progress import Progress, fit

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

#: most redrawings of the live line in a second
REFRESHES = 5.0
#: throughput is told over about this many seconds
RATE_WINDOW = 10.0
#: the first heartbeat comes early, so that a reader of a log sees that it goes
FIRST_HEARTBEAT = 5.0
#: characters of the live line's bar
BAR = 12
STYLES = {"name": "bold", "bar": "green", "share": "bold", "left": "cyan", "eta": "cyan", "loss": "bold", "tokens": "dim", "steps": "dim",
          "account": "yellow"}  # fmt: skip


class Display(Protocol):
    """What the training loop tells whoever watches. No call may raise on account of the place it writes to, or cost time that matters."""

    def start(self, budget: Budget, limits: Mapping[str, float] | None = None) -> None:
        """The run begins, or goes on: what may be spent, in all (``limits`` where it differs from the budget's own)."""

    def step(self, record: Record, spent: Mapping[str, float], share: float, seconds_left: float | None) -> None:
        """A step is done.

        Args:
            record: what it did and saw.
            spent: unit -> amount the run has spent.
            share: of the whole budget, in [0, 1].
            seconds_left: until the budget is expected to be used up; None when unknown.
        """

    def doing(self, account: str) -> None:
        """An account is opened that may take a while (``eval``, ``checkpoint``); the live line shows it until the next step."""

    def say(self, message: str) -> None:
        """Show a message above the line: a stage begins, an evaluation's result, a warning."""

    def close(self) -> None:
        """The run is over; the last state stays readable."""


class Quiet:
    """Shows nothing."""

    def start(self, budget: Budget, limits: Mapping[str, float] | None = None) -> None:
        """Do nothing."""

    def step(self, record: Record, spent: Mapping[str, float], share: float, seconds_left: float | None) -> None:
        """Do nothing."""

    def doing(self, account: str) -> None:
        """Do nothing."""

    def say(self, message: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def make_display(
    console: Console | None = None,
    budget: Budget | None = None,
    name: str = "run",
    steps: int | None = None,
    *,
    heartbeat: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
) -> Display:
    """Return the display that suits the console: a live line where somebody can watch it, heartbeat lines elsewhere.

    Args:
        console: where to write; None for standard output.
        budget: what may be spent, where it is known before the display is started; the most spent limit is the one spoken of.
        name: of the run.
        steps: how many steps are expected, where a plan tells.
        heartbeat: seconds between two heartbeat lines, > 0; the first comes after at most 5 s.
        clock: returns seconds, never going back; tests inject their own.
    """
    from rich.console import Console

    console = console or Console()
    watched = False
    with contextlib.suppress(OSError, ValueError):
        # rich takes FORCE_COLOR for a terminal; a log file that is to be coloured still cannot redraw a line
        watched = console.is_interactive and not console.is_jupyter and console.file.isatty()
    budget = budget or Budget()
    if watched:
        return LiveLine(console, budget, name, steps, clock)
    return Heartbeat(console, budget, name, steps, heartbeat, clock)


class Heartbeat:
    """A plain line now and then, in steady columns and without control codes, for logs and pipes.

    Args:
        console: where to write.
        budget: what may be spent.
        name: of the run.
        steps: how many steps are expected, if known.
        heartbeat: seconds between two lines, > 0.
        clock: returns seconds, never going back.
    """

    def __init__(
        self, console: Console, budget: Budget, name: str, steps: int | None, heartbeat: float, clock: Callable[[], float]
    ) -> None:
        self._console, self._name = console, name
        self._state = Progress(budget, steps, clock)
        self._every = heartbeat
        self._clock = clock
        self._due = clock() + min(FIRST_HEARTBEAT, heartbeat)
        self._told: Record | None = None
        self._closed = False

    def start(self, budget: Budget, limits: Mapping[str, float] | None = None) -> None:
        """Tell the name and the budget."""
        self._state.start(budget, limits)
        self._due = self._clock() + min(FIRST_HEARTBEAT, self._every)
        self._write(f"{self._name}  budget {budget}")

    def step(self, record: Record, spent: Mapping[str, float], share: float, seconds_left: float | None) -> None:
        """Keep what the step told; write a line when one is due."""
        self._state.take(record, spent, share, seconds_left)
        now = self._clock()
        if now >= self._due:
            self._due = now + self._every
            self._beat()

    def doing(self, account: str) -> None:
        """Write a line when one is due, so that a long evaluation is not silent."""
        if self._clock() >= self._due:
            self._due = self._clock() + self._every
            self._beat(account)

    def say(self, message: str) -> None:
        """Write the message as a line of its own."""
        self._write(message)

    def close(self) -> None:
        """Write the last state, unless the last line told it."""
        if not self._closed and self._state.record is not None and self._told is not self._state.record:
            self._beat()
        self._closed = True

    def _beat(self, account: str = "") -> None:
        self._told = self._state.record
        told = [text for _, text in self._state.fields(self._every)]
        self._write("  ".join([*told, account]))

    def _write(self, text: str) -> None:
        # nobody may be reading any more: a closed pipe or file must not end the run
        with contextlib.suppress(OSError, ValueError):
            line = "outlay  " + " ".join(text.rstrip().splitlines()) + "\n"
            encoding = self._console.encoding
            self._console.file.write(line.encode(encoding, "replace").decode(encoding))
            self._console.file.flush()


class LiveLine:
    """One line on a terminal that is redrawn in place, at most five times a second, and only from the loop's own thread.

    Args:
        console: the terminal.
        budget: what may be spent.
        name: of the run.
        steps: how many steps are expected, if known.
        clock: returns seconds, never going back.
    """

    def __init__(self, console: Console, budget: Budget, name: str, steps: int | None, clock: Callable[[], float]) -> None:
        self._console, self._name = console, name
        self._state = Progress(budget, steps, clock)
        self._clock = clock
        self._due = clock()
        self._account = ""
        self._live: Live | None = None

    def start(self, budget: Budget, limits: Mapping[str, float] | None = None) -> None:
        """Draw the line for the first time."""
        from rich.live import Live

        self._state.start(budget, limits)
        if self._live is not None:
            return
        with self._safely():
            self._live = Live(self._line(), console=self._console, auto_refresh=False, vertical_overflow="crop")
            self._live.start(refresh=True)

    def step(self, record: Record, spent: Mapping[str, float], share: float, seconds_left: float | None) -> None:
        """Keep what the step told; redraw when a fifth of a second has passed."""
        self._state.take(record, spent, share, seconds_left)
        self._account = ""
        if self._clock() >= self._due:
            self._draw()

    def doing(self, account: str) -> None:
        """Show the account that was opened."""
        self._account = account
        if self._clock() >= self._due:
            self._draw()

    def say(self, message: str) -> None:
        """Print the message above the line."""
        with self._safely():
            self._console.print(message, markup=False, highlight=False)

    def close(self) -> None:
        """Draw the last state and leave it standing."""
        self._account = ""
        live, self._live = self._live, None
        if live is not None:
            with self._safely():
                live.update(self._line())
                live.stop()

    def _draw(self) -> None:
        self._due = self._clock() + 1 / REFRESHES
        if self._live is None:
            return
        with self._safely():
            self._live.update(self._line(), refresh=True)

    def _line(self) -> Text:
        from rich.text import Text

        share = self._state.share if math.isfinite(self._state.share) else 0.0
        done, rest = ("#", "-") if self._console.options.ascii_only else ("━", "━")
        filled = round(BAR * min(1.0, max(0.0, share)))
        told = [("name", self._name), ("bar", done * filled + rest * (BAR - filled)), *self._state.fields(RATE_WINDOW)]
        if self._account:
            told.append(("account", self._account))
        line = Text(no_wrap=True, overflow="ellipsis")
        for i, (role, text) in enumerate(fit(told, self._console.width - 1)):
            line.append("  " if i else "").append(text, style=STYLES.get(role, ""))
            if role == "bar":
                line.stylize("bright_black", len(line) - BAR + filled, len(line))
        return line

    @contextlib.contextmanager
    def _safely(self) -> Iterator[None]:
        """Survive a terminal that went away; rich turns a broken pipe into an exit, which is not the display's to decide."""
        try:
            yield
        except (OSError, ValueError):
            self._give_up()
        except SystemExit as leaving:
            if not isinstance(leaving.__context__, BrokenPipeError):
                raise
            self._give_up()

    def _give_up(self) -> None:
        """Stop drawing and hand back standard output, which a live line takes over."""
        live, self._live = self._live, None
        # rich trips over its own empty stack when a line is stopped that could not be started
        with contextlib.suppress(OSError, ValueError, IndexError, SystemExit):
            if live is not None:
                live.stop()
