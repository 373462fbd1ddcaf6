"""The open-ended check finds each rule broken; and the family is found by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from outlay import catalog
from outlay.open_ended import METHODS, Hold, Infinite, OpenSchedule
from outlay.testing import check_open_schedule


@dataclass(frozen=True)
class Odd:
    at_amount: Callable[[float], Any] = field(default=lambda n: 1.0, repr=False)

    def at(self, amount: float) -> Any:
        return self.at_amount(amount)


class Listening(Odd):
    def observe(self, record: Any) -> None: ...


class ByProgress(Odd):
    def value(self, progress: float) -> float:
        return progress


@dataclass
class Counting:
    reads: int = 0

    def at(self, amount: float) -> float:
        self.reads += 1
        return 1.0


@dataclass
class Drifting:
    def __post_init__(self) -> None:
        self.reads = 0

    def at(self, amount: float) -> float:
        self.reads += 1
        return 1.0 / self.reads


@dataclass
class Forgetful:
    warmup: float = 1.0

    def __post_init__(self) -> None:
        self.warmup += 1.0

    def at(self, amount: float) -> float:
        return min(1.0, amount / self.warmup)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (object(), r"an open schedule has at\(amount\)"),
        (Listening(), "keeps nothing, listens to nothing"),
        (ByProgress(), "knows no progress"),
        (Odd(lambda n: "1"), "an open schedule's value is a number"),
        (Odd(lambda n: math.nan if n > 1e17 else 1.0), r"stays in \[0, 1\], whatever has been spent"),
        (Odd(lambda n: 1.0 + n), r"stays in \[0, 1\], whatever has been spent"),
        (Odd(lambda n: -1e-9 if n == 0 else 0.5), r"stays in \[0, 1\], whatever has been spent"),
        (Drifting(), "the same amount gives the same value"),
        (Counting(), "reading an open schedule changes nothing in it"),
        (Forgetful(), "its described fields build an equal object"),
    ],
    ids=lambda part: type(part).__name__ if not isinstance(part, str) else "",
)
def test_finds_the_broken_rule(broken: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_open_schedule(broken)


def test_the_family_is_in_the_catalog() -> None:
    assert catalog.FAMILIES["open_ended"] == OpenSchedule.__name__
    assert catalog.make("open_ended/infinite", warmup=10, cooldown=90, shape="inverse_root") == Infinite(10.0, 90.0, shape="inverse_root")
    assert catalog.describe(Hold(3.0)) == {"open_ended/hold": {"warmup": 3.0}}
    with pytest.raises(ValueError, match="the field 'cooldown' is missing"):
        catalog.make("open_ended/infinite", warmup=1)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is(name: str) -> None:
    cls = METHODS[name]
    (entry,) = [entry for entry in catalog.listing("open_ended") if entry.name == f"open_ended/{name}"]
    assert entry.title != name and entry.paper is not None and entry.summary
    assert all(f"{each.name}:" in (cls.__doc__ or "") for each in entry.fields), "every field is documented"
