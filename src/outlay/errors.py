"""What outlay raises: every message says what was found, what is accepted and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class OutlayError(Exception):
    """Base of everything outlay raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input.

    Args:
        where: path of the field inside the recipe, such as ``stages[0].knobs.lr``; empty when the whole input is meant.
        message: what was found, what is accepted, what to do.
        line: 1-based line in the file the input came from, when it came from one.
    """

    where: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.where + (f" (line {self.line})" if self.line else "")
        return f"{place}: {self.message}" if place else self.message


class InputError(OutlayError, ValueError):
    """The user's input is wrong; nothing has been spent. Carries every problem found, not only the first.

    Args:
        problems: one message, or all the problems together.
        source: the file the input came from, if any.
    """

    def __init__(self, problems: str | Sequence[Problem], source: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        self.source = source
        head = f"{source}: " if source else ""
        if len(self.problems) == 1:
            super().__init__(f"{head}{self.problems[0]}")
        else:
            lines = "\n".join(f"  - {problem}" for problem in self.problems)
            super().__init__(f"{head}{len(self.problems)} problems\n{lines}")


class MissingExtra(OutlayError, ImportError):
    """An optional package is needed and not installed; the message names the extra that brings it.

    Args:
        package: the import that failed, such as ``transformers``.
        extra: the extra of outlay that installs it, such as ``hf``.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package!r}, which is not installed; run: pip install 'outlay[{extra}]'")


class CheckpointError(OutlayError):
    """A checkpoint is torn, tampered with or missing; the message names the file."""


def nearest(name: str, accepted: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest accepted name, or the list of them when none is close."""
    names = sorted(accepted)
    tail = [known.rsplit("/", 1)[-1] for known in names]
    close = difflib.get_close_matches(name.rsplit("/", 1)[-1].lower(), tail, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {names[tail.index(close[0])]!r}?"
    return f"; accepted: {', '.join(names)}" if names else ""


class RunFailed(OutlayError):
    """The run cannot go on (its numbers are broken, or nothing can be learnt); what there is has been saved."""
