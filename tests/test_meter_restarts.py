"""The books over a run's life: journal lines that add up, kills, restarts and the end."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.budget import FLOWS, Budget
from outlay.meter import IDLE, LOST, Books, Meter
from outlay.testing import FakeClock, check_resumable

COUNTED = [unit for unit in FLOWS if unit not in ("seconds", "usd")]
charges = st.lists(
    st.tuples(st.sampled_from(["train", "eval", "rollout"]), st.sampled_from(COUNTED), st.integers(min_value=0, max_value=10**9)),
    max_size=30,
)


def seconds(meter: Meter) -> dict[str, float]:
    return {account: book["seconds"] for account, book in meter.books().items() if "seconds" in book}


def added(lines: list[Books]) -> Books:
    sums: Books = {}
    for line in lines:
        for account, book in line.items():
            for unit, amount in book.items():
                sums.setdefault(account, {})[unit] = sums.get(account, {}).get(unit, 0.0) + amount
    return sums


def play(meter: Meter, clock: FakeClock, made: list[tuple[str, str, int]]) -> None:
    for account, unit, amount in made:
        with meter.spend(account):
            clock.advance(amount % 97 / 8)
            meter.charge(account, **{unit: amount})
        clock.advance(0.25)


@settings(max_examples=60, deadline=None)
@given(st.lists(charges, max_size=5))
def test_drained_lines_add_up_to_the_accounts(pieces: list[list[tuple[str, str, int]]]) -> None:
    clock = FakeClock()
    meter = Meter(Budget({"seconds": 1e9}), clock)
    lines = []
    for piece in pieces:
        play(meter, clock, piece)
        lines.append(meter.drain())
        assert meter.drain() == {}
    books = {account: {unit: amount for unit, amount in book.items() if amount} for account, book in meter.books().items()}
    assert added(lines) == books
    assert all(amount > 0 for line in lines for book in line.values() for amount in book.values())


def test_a_drained_line_holds_only_what_is_new() -> None:
    clock = FakeClock()
    meter = Meter(Budget({"seconds": 100}), clock)
    play(meter, clock, [("train", "tokens", 8), ("eval", "tokens", 16)])
    assert meter.drain() == {"train": {"tokens": 8, "seconds": 1.0}, "eval": {"tokens": 16, "seconds": 2.0}, IDLE: {"seconds": 0.5}}
    play(meter, clock, [("train", "tokens", 8)])
    assert meter.drain() == {"train": {"tokens": 8, "seconds": 1.0}, IDLE: {"seconds": 0.25}}


def test_books_are_taken_up_beside_what_setting_up_has_cost() -> None:
    clock = FakeClock()
    before = Meter(Budget({"seconds": 100, "tokens": 100}), clock)
    play(before, clock, [("train", "tokens", 8), ("eval", "tokens", 16)])
    before.write_off({"seconds": 2.0, "tokens": 4.0})
    state = json.loads(json.dumps(before.state_dict()))

    clock = FakeClock(7.0)
    after = Meter(Budget({"seconds": 100, "tokens": 100}), clock, began=4.0)
    with after.spend("setup"):
        clock.advance(5.0)
    after.load_state_dict(state)
    expected = before.books() | {"setup": {"seconds": 3.0 + 5.0}}  # what passed before the meter was made belongs to setting up
    assert after.books() == expected
    assert after.lost == {"seconds": 2.0, "tokens": 4.0}
    # the journal already holds what was loaded
    assert after.drain() == {"setup": {"seconds": 8.0}}
    play(after, clock, [("train", "tokens", 8)])
    assert after.drain() == {"train": {"tokens": 8, "seconds": 1.0}, IDLE: {"seconds": 0.25}}
    assert after.progress == 0.32


def test_the_settled_books_are_what_the_lines_so_far_add_up_to() -> None:
    clock = FakeClock()
    meter = Meter(Budget({"seconds": 100}), clock)
    play(meter, clock, [("train", "tokens", 8), ("eval", "tokens", 16)])
    meter.write_off({"seconds": 2.0, "tokens": 4.0})
    lines = [meter.drain()]
    settled = json.loads(json.dumps(meter.settled()))
    play(meter, clock, [("train", "tokens", 8)])
    assert json.loads(json.dumps(meter.settled())) == settled == {"accounts": added(lines), "lost": {"seconds": 2.0, "tokens": 4.0}}
    lines.append(meter.drain())
    assert meter.settled() == meter.state_dict() == {"accounts": added(lines), "lost": {"seconds": 2.0, "tokens": 4.0}}

    resumed = Meter(Budget({"seconds": 100}), FakeClock())
    resumed.load_state_dict(settled)
    assert resumed.books() == added(lines[:1])


def test_a_closed_meter_charges_no_more_seconds() -> None:
    clock = FakeClock()
    meter = Meter(Budget({"seconds": 100}), clock)
    with meter.spend("train"):
        clock.advance(2)
        meter.close()
        clock.advance(4)
    clock.advance(8)
    assert seconds(meter) == {"train": 2.0}
    assert meter.spent("seconds") == 2.0


def test_a_state_is_a_copy_and_what_is_loaded_is_not_kept() -> None:
    clock = FakeClock()
    meter = Meter(Budget({"tokens": 100}), clock)
    meter.charge("train", tokens=1)
    meter.write_off({"tokens": 1.0})
    state = meter.state_dict()
    text = json.dumps(state)
    other = Meter(Budget({"tokens": 100}), clock)
    other.load_state_dict(state)
    for each in (meter, other):
        each.charge("train", tokens=5)
        each.write_off({"tokens": 5.0})
    assert json.dumps(state) == text


class _Metered:
    """A meter with its clock, as a part that can be checked; loading takes a meter as fresh as a new process has."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.meter = Meter(Budget({"seconds": 64, "tokens": 1000}), self.clock)

    def state_dict(self) -> dict[str, object]:
        return self.meter.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]
        self.meter.load_state_dict(state)


def test_going_on_from_saved_books_equals_never_having_stopped() -> None:
    def drive(part: _Metered, step: int) -> None:
        play(part.meter, part.clock, [("train" if step % 2 else "eval", "tokens", 8 * step)])

    def read(part: _Metered) -> object:
        meter = part.meter
        return [{a: meter.books()[a] for a in sorted(meter.books())}, meter.progress, meter.totals(), meter.left("tokens"), meter.exhausted]

    check_resumable(_Metered, drive, read, steps=6)


def lose_seconds(meter: Meter) -> None:
    meter.write_off({"seconds": 7.0})


def lose_tokens(meter: Meter) -> None:
    meter.write_off({"tokens": 30.0, "steps": 2.0})


@pytest.mark.parametrize(
    ("lose", "seconds_left", "tokens_left", "lost"),
    [(lose_seconds, 92.0, 60.0, {"seconds": 7.0}), (lose_tokens, 99.0, 60.0, {"tokens": 30.0, "steps": 2.0})],
)
def test_lost_seconds_count_and_lost_counts_stand_beside(
    lose: Callable[[Meter], None], seconds_left: float, tokens_left: float, lost: dict[str, float]
) -> None:
    clock = FakeClock()
    meter = Meter(Budget({"seconds": 100, "tokens": 100}), clock)
    with meter.spend("train"):
        clock.advance(1)
        meter.charge("train", tokens=40)
    meter.drain()
    lose(meter)
    assert (meter.left("seconds"), meter.left("tokens")) == (seconds_left, tokens_left)
    assert meter.lost == lost
    assert meter.drain() == ({LOST: {"seconds": 7.0}} if "seconds" in lost else {})


def test_losses_add_up_whether_booked_before_or_after_loading() -> None:
    first = Meter(Budget({"seconds": 100}), FakeClock())
    first.write_off({"seconds": 1.0, "tokens": 2.0})
    second = Meter(Budget({"seconds": 100}), FakeClock())
    second.write_off({"seconds": 4.0, "steps": 1.0})
    second.load_state_dict(first.state_dict())
    second.write_off({"seconds": 8.0, "tokens": 3.0})
    assert second.lost == {"seconds": 13.0, "tokens": 5.0, "steps": 1.0}
    assert seconds(second) == {LOST: 13.0}
