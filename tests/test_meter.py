"""The books: every second on one account, spent + left = declared, nothing lost over a restart."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.budget import FLOWS, Budget, Price
from outlay.errors import InputError
from outlay.meter import IDLE, SETUP, Meter
from outlay.testing import FakeClock

COUNTED = [unit for unit in FLOWS if unit not in ("seconds", "usd")]


def seconds(meter: Meter) -> dict[str, float]:
    return {account: book["seconds"] for account, book in meter.books().items() if "seconds" in book}


# ---- seconds -------------------------------------------------------------------------------------------------------------------------


def test_an_inner_account_pauses_the_outer_one() -> None:
    clock = FakeClock(100.0)
    meter = Meter(Budget({"seconds": 1000}), clock)
    clock.advance(1)
    with meter.spend("train"):
        clock.advance(2)
        with meter.spend("eval"):
            clock.advance(4)
            with meter.spend("train"):
                clock.advance(8)
            clock.advance(16)
        clock.advance(32)
    clock.advance(64)
    assert seconds(meter) == {IDLE: 65.0, "train": 42.0, "eval": 20.0}
    assert meter.spent("seconds") == 127.0


#: dyadic, so that sums of them are exact
durations = st.integers(min_value=0, max_value=2**20).map(lambda k: k / 1024)
spans = st.recursive(
    durations, lambda inner: st.tuples(st.sampled_from(["train", "eval", "probe"]), st.lists(inner, max_size=4)), max_leaves=12
)


@settings(max_examples=150, deadline=None)
@given(st.lists(spans, max_size=6), st.floats(min_value=0, max_value=100).map(lambda x: round(x * 64) / 64))
def test_accounts_sum_to_elapsed_whatever_the_nesting(program: list[object], before: float) -> None:
    clock = FakeClock(1000.0)
    meter = Meter(Budget({"seconds": 1e9}), clock, began=1000.0 - before)
    expected = {SETUP: before}

    def play(part: object, account: str) -> None:
        if isinstance(part, tuple):
            with meter.spend(part[0]):
                for inner in part[1]:
                    play(inner, part[0])
        else:
            assert isinstance(part, float)
            clock.advance(part)
            expected[account] = expected.get(account, 0.0) + part
            if part > 512:  # a look at the books in the midst of a span changes nothing
                meter.spent("seconds")

    for part in program:
        play(part, IDLE)
    assert seconds(meter) == {account: amount for account, amount in expected.items() if amount}
    assert meter.spent("seconds") == clock.now - 1000.0 + before == sum(seconds(meter).values())


def test_seconds_are_charged_when_the_block_fails() -> None:
    clock = FakeClock()
    meter = Meter(Budget({"seconds": 10}), clock)
    with pytest.raises(RuntimeError, match="boom"), meter.spend("train"):
        clock.advance(3)
        raise RuntimeError("boom")
    clock.advance(1)
    assert seconds(meter) == {"train": 3.0, IDLE: 1.0}


def test_time_before_the_meter_was_made_counts() -> None:
    meter = Meter(Budget({"seconds": 10}), FakeClock(50.0), began=47.5)
    assert seconds(meter) == {SETUP: 2.5}


def test_a_clock_that_jumps_back_takes_nothing_off_the_books() -> None:
    clock = FakeClock(10.0)
    meter = Meter(Budget({"seconds": 100}), clock)
    with meter.spend("train"):
        clock.advance(5)
        assert meter.spent("seconds") == 5.0
        clock.now -= 3
        assert meter.spent("seconds") == 5.0
        clock.advance(2)  # still behind the latest reading
    assert meter.spent("seconds") == 5.0
    clock.advance(4)
    assert seconds(meter) == {"train": 5.0, IDLE: 3.0}


def test_a_noisy_clock_balances_too_and_repeats() -> None:
    def spend() -> dict[str, float]:
        clock = FakeClock(noise=0.5, seed=3)
        meter = Meter(Budget({"seconds": 100}), clock)
        for _ in range(5):
            with meter.spend("train"):
                clock.advance(1)
        assert meter.spent("seconds") == pytest.approx(clock.now, rel=1e-14)
        return seconds(meter)

    assert spend() == spend() != {"train": 5.0}


# ---- counted units -------------------------------------------------------------------------------------------------------------------

charges = st.lists(
    st.tuples(st.sampled_from(["train", "eval", "rollout"]), st.sampled_from(COUNTED), st.integers(min_value=0, max_value=10**9)),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(charges, durations)
def test_spent_and_left_make_what_was_declared(made: list[tuple[str, str, int]], elapsed: float) -> None:
    limits = {unit: float(10**6 * (i + 1)) for i, unit in enumerate(FLOWS)}
    clock = FakeClock()
    meter = Meter(Budget(limits, {}, Price(0.5, "seconds")), clock)
    totals = dict.fromkeys(FLOWS, 0.0)
    for account, unit, amount in made:
        meter.charge(account, **{unit: amount})
        totals[unit] += amount
    clock.advance(elapsed)
    totals["seconds"], totals["usd"] = elapsed, 0.5 * elapsed
    assert meter.totals() == totals
    for unit in FLOWS:
        assert meter.spent(unit) == totals[unit]
        assert meter.left(unit) == limits[unit] - totals[unit]
        assert math.fsum(book.get(unit, 0.0) for book in meter.books().values()) == totals[unit]
    left = meter.remaining().limits
    assert left == {unit: limits[unit] - totals[unit] for unit in FLOWS if limits[unit] > totals[unit]}


def test_several_units_in_one_charge_and_accounts_kept_apart() -> None:
    meter = Meter(Budget({"tokens": 100}), FakeClock())
    meter.charge("train", tokens=30, steps=1, flops=2.5)
    meter.charge("train", tokens=12)
    meter.charge("eval", tokens=5)
    assert meter.books() == {"train": {"tokens": 42, "steps": 1, "flops": 2.5}, "eval": {"tokens": 5}}
    assert meter.left("tokens") == 53
    assert meter.left("steps") == math.inf
    assert meter.totals() == {"steps": 1, "tokens": 47, "flops": 2.5, "seconds": 0}


def test_a_charge_in_tensors_is_booked_in_numbers() -> None:
    torch = pytest.importorskip("torch")
    meter = Meter(Budget({"tokens": 100}), FakeClock())
    meter.charge("train", tokens=torch.tensor(7))
    assert json.loads(json.dumps(meter.state_dict()))["accounts"]["train"] == {"tokens": 7.0}


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({"seconds": 1.0}, "'seconds' cannot be charged by hand; accepted: steps, examples, tokens, flops, rollouts, new_tokens, labels"),
        ({"usd": 1.0}, "'usd' cannot be charged by hand"),
        ({"memory": 1.0}, "'memory' cannot be charged by hand"),
        ({"tokens": -1.0}, "a charge must be a finite number >= 0, found tokens=-1.0"),
        ({"tokens": math.nan}, "found tokens=nan"),
        ({"steps": 1.0, "flops": math.inf}, "found flops=inf"),
    ],
)
def test_refused_charges_leave_no_trace(amounts: dict[str, float], message: str) -> None:
    meter = Meter(Budget({"tokens": 100}), FakeClock())
    with pytest.raises(InputError, match=message):
        meter.charge("train", **amounts)
    assert meter.books() == {}


# ---- money ---------------------------------------------------------------------------------------------------------------------------


def test_money_follows_from_seconds() -> None:
    clock = FakeClock()
    meter = Meter(Budget.parse("$1 at $2/h"), clock)
    with meter.spend("train"):
        clock.advance(900)
    clock.advance(450)
    assert meter.spent("usd") == pytest.approx(0.75, rel=1e-15)
    assert meter.left("usd") == pytest.approx(0.25, rel=1e-15)
    assert meter.books()["train"]["usd"] == pytest.approx(0.5, rel=1e-15)
    assert meter.books()[IDLE]["usd"] == pytest.approx(0.25, rel=1e-15)
    assert meter.progress == pytest.approx(0.75, rel=1e-15)
    assert meter.exhausted is None
    clock.advance(460)
    assert meter.exhausted == "usd"


def test_money_follows_from_tokens_and_sums_by_account() -> None:
    clock = FakeClock()
    meter = Meter(Budget.parse("$3 at $0.25/token"), clock)
    meter.charge("train", tokens=5)
    meter.charge("eval", tokens=3)
    meter.charge("eval", steps=4)
    clock.advance(99)
    assert meter.spent("usd") == 2.0
    assert meter.books() == {
        IDLE: {"seconds": 99.0},
        "train": {"tokens": 5, "usd": 1.25},
        "eval": {"tokens": 3, "usd": 0.75, "steps": 4},
    }
    assert meter.remaining() == Budget({"usd": 1.0}, {}, Price(0.25, "tokens"))


def test_without_a_price_there_is_no_money() -> None:
    meter = Meter(Budget({"tokens": 3}), FakeClock())
    meter.charge("train", tokens=3)
    assert meter.spent("usd") == 0.0
    assert meter.left("usd") == math.inf
    assert "usd" not in meter.books()["train"]


# ---- progress and the end ------------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(min_value=0, max_value=60), st.integers(min_value=-50, max_value=60)), max_size=12))
def test_progress_is_the_largest_share_and_never_falls(steps: list[tuple[int, int]]) -> None:
    clock = FakeClock()
    meter = Meter(Budget({"tokens": 400, "seconds": 200}, {"memory": 1}), clock)
    previous, latest, tokens = 0.0, 0.0, 0
    for charged, moved in steps:
        meter.charge("train", tokens=charged)
        clock.now += moved  # also backwards
        tokens, latest = tokens + charged, max(latest, clock.now)
        progress = meter.progress
        assert progress == min(1.0, max(tokens / 400, meter.spent("seconds") / 200))
        assert previous <= progress <= 1.0
        assert meter.spent("seconds") >= latest
        assert (meter.exhausted is not None) == (progress == 1.0)
        previous = progress


def test_progress_does_not_fall_when_the_budget_grows() -> None:
    meter = Meter(Budget({"steps": 10}), FakeClock())
    meter.charge("train", steps=5)
    assert meter.progress == 0.5
    meter.budget = Budget({"steps": 100})
    assert meter.progress == 0.5
    meter.charge("train", steps=55)
    assert meter.progress == 0.6


def test_the_first_limit_that_is_used_up_is_named() -> None:
    clock = FakeClock()
    meter = Meter(Budget({"tokens": 10, "seconds": 5, "steps": 2}), clock)
    assert meter.exhausted is None
    meter.charge("train", steps=1, tokens=9)
    clock.advance(4)
    assert meter.exhausted is None
    clock.advance(1)
    assert meter.exhausted == "seconds"
    assert meter.remaining() == Budget({"tokens": 1, "steps": 1})
    meter.charge("train", tokens=2)
    assert meter.exhausted == "tokens"
    assert meter.left("tokens") == -1


def test_without_a_limit_there_is_no_progress() -> None:
    clock = FakeClock()
    meter = Meter(Budget({}, {"memory": 1}), clock)
    clock.advance(1e9)
    meter.charge("train", steps=10**9)
    assert (meter.progress, meter.exhausted) == (0.0, None)


def test_labels_are_bought_at_once_and_tell_nothing_of_progress() -> None:
    meter = Meter(Budget.parse("10 steps, 100 labels"), lambda: 0.0)
    meter.charge("data", labels=100)
    meter.charge("train", steps=3)
    assert (meter.progress, meter.exhausted, meter.left("labels")) == (0.3, None, 0.0)
    meter.charge("train", steps=7)
    assert (meter.progress, meter.exhausted) == (1.0, "steps")
