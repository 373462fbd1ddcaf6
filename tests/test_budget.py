"""Budgets: reading, writing, refusing, splitting."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.budget import CEILINGS, FLOWS, WHOLE, Budget, Price, format_amount
from outlay.errors import InputError

HOURLY = Price(2 / 3600, "seconds")

READ: dict[str, dict[str, float]] = {
    # times
    "90s": {"seconds": 90},
    "90 s": {"seconds": 90},
    "30m": {"seconds": 1800},
    "30 min": {"seconds": 1800},
    "1h30m": {"seconds": 5400},
    "1h 30m": {"seconds": 5400},
    "1d12h": {"seconds": 129600},
    "2 days": {"seconds": 172800},
    "1.5 hours": {"seconds": 5400},
    ".5h": {"seconds": 1800},
    "1e3s": {"seconds": 1000},
    "10,000 s": {"seconds": 10000},
    "45 minutes 30 secs": {"seconds": 2730},
    # counts
    "3k steps": {"steps": 3000},
    "1 step": {"steps": 1},
    "500M tokens": {"tokens": 500_000_000},
    "500Mtokens": {"tokens": 500_000_000},
    "2B tokens": {"tokens": 2e9},
    "1.5G tokens": {"tokens": 1.5e9},
    "20k rollouts": {"rollouts": 20000},
    "1000 labels": {"labels": 1000},
    "2e5 examples": {"examples": 200000},
    "1M new_tokens": {"new_tokens": 1_000_000},
    "20k new tokens": {"new_tokens": 20000},
    "10_000 steps": {"steps": 10000},
    "1,500,000 tokens": {"tokens": 1_500_000},
    "0.0057M tokens": {"tokens": 5700},  # 0.0057 * 1e6 is not a whole number in floating point
    # compute
    "2e15 flops": {"flops": 2e15},
    "2E15 flops": {"flops": 2e15},
    "3 PFLOPs": {"flops": 3e15},
    "3 TFLOPS": {"flops": 3e12},
    "1.5 Eflops": {"flops": 1.5e18},
    "0.5 flops": {"flops": 0.5},
    # several at once
    "10m or 3k steps": {"seconds": 600, "steps": 3000},
    "10m and 3k steps": {"seconds": 600, "steps": 3000},
    "10m, 3k steps": {"seconds": 600, "steps": 3000},
    "10m;3k steps": {"seconds": 600, "steps": 3000},
    "10,000 steps,30m, 5 labels": {"steps": 10000, "seconds": 1800, "labels": 5},
    "  30m  ": {"seconds": 1800},
}


@pytest.mark.parametrize("text", READ)
def test_reads_flows(text: str) -> None:
    assert Budget.parse(text) == Budget(READ[text])


@pytest.mark.parametrize(
    ("text", "limits", "ceilings"),
    [
        ("10m, 24GiB", {"seconds": 600}, {"memory": 24 * 2**30}),
        ("24GiB or 10m", {"seconds": 600}, {"memory": 24 * 2**30}),
        ("10m, 24 GB, 10M params", {"seconds": 600}, {"memory": 24e9, "params": 10e6}),
        ("512MiB", {}, {"memory": 2**29}),
        ("1.5 TiB", {}, {"memory": 1.5 * 2**40}),
        ("3 TB", {}, {"memory": 3e12}),
        ("4 KiB", {}, {"memory": 4096}),
        ("4 KB", {}, {"memory": 4000}),
        ("5 MB", {}, {"memory": 5e6}),
        ("12345 bytes", {}, {"memory": 12345}),
        ("1 byte", {}, {"memory": 1}),
        ("300 parameters", {}, {"params": 300}),
    ],
)
def test_reads_ceilings(text: str, limits: dict[str, float], ceilings: dict[str, float]) -> None:
    assert Budget.parse(text) == Budget(limits, ceilings)


@pytest.mark.parametrize(
    ("text", "limits", "price"),
    [
        ("$5 at $2/h", {"usd": 5}, HOURLY),
        ("$ 5 at $ 2 / h", {"usd": 5}, HOURLY),
        ("5 usd at 2 usd per hour", {"usd": 5}, HOURLY),
        ("5 USD at 2 USD/h", {"usd": 5}, HOURLY),
        ("$0.5 at 0.001 usd/s", {"usd": 0.5}, Price(0.001, "seconds")),
        ("$1,000 at $1e-3/s", {"usd": 1000}, Price(0.001, "seconds")),
        ("3 usd at 0.5 usd/M tokens", {"usd": 3}, Price(0.5e-6, "tokens")),
        ("$3 at $4/1k tokens", {"usd": 3}, Price(0.004, "tokens")),
        ("$3 at $4/250 tokens", {"usd": 3}, Price(0.016, "tokens")),
        ("$3 at $0.25/token", {"usd": 3}, Price(0.25, "tokens")),
        ("$5 at $2/h or 3k steps", {"usd": 5, "steps": 3000}, HOURLY),
        ("30m or $5 at $2/h", {"seconds": 1800, "usd": 5}, HOURLY),
    ],
)
def test_reads_money(text: str, limits: dict[str, float], price: Price) -> None:
    assert Budget.parse(text) == Budget(limits, {}, price)


def test_capital_m_is_a_million_and_never_minutes() -> None:
    assert Budget.parse("30 m").limits == {"seconds": 1800.0}
    with pytest.raises(InputError, match=r"cannot read '30 M'"):
        Budget.parse("30 M")


REFUSED = {
    "": r"a budget is a text such as '30m', found ''",
    "   ": r"a budget is a text such as '30m', found '   '",
    "30": r"cannot read '30' in the budget '30'; accepted are times",
    "thirty minutes": r"cannot read 'thirty minutes'",
    "30 lightyears": r"cannot read '30 lightyears'",
    "30ms": r"cannot read '30ms'",
    "1m30": r"cannot read '1m30'",
    "m30": r"cannot read 'm30'",
    "-30m": r"cannot read '-30m'",
    "3k step s": r"cannot read '3k step s'",
    "5 tokenss": r"cannot read '5 tokenss'",
    "10m or": r"cannot read '10m or'",
    "10m,": r"cannot read '' in the budget '10m,'",
    "10m or 3k stepz": r"cannot read '3k stepz' in the budget '10m or 3k stepz'",
    "10m or 20m": r"'10m or 20m' limits seconds twice; keep one of them",
    "1h, 30m": r"limits seconds twice",
    "1 GiB, 2 GB": r"limits memory twice",
    "10 params, 1k params": r"limits params twice",
    "$1 at $1/h or $2 at $2/h": r"limits usd twice",
    "0s": r"the limit on seconds must be a finite number > 0, found 0",
    "0 steps": r"the limit on steps must be a finite number > 0, found 0",
    "0GiB": r"the limit on memory must be a finite number > 0, found 0",
    "1.5 steps": r"steps are counted in whole numbers, found '1\.5 steps'",
    "0.4 labels": r"labels are counted in whole numbers, found '0\.4 labels'",
    "0.0001k params": r"params are counted in whole numbers",
    "1e999 steps": r"the number '1e999' in the budget '1e999 steps' is too large",
    "1e999 s": r"the number '1e999' in the budget '1e999 s' is too large",
    "1e300E steps": r"steps are counted in whole numbers",
    "1e300E flops": r"the limit on flops must be a finite number > 0, found inf",
    "$5": r"a budget in usd needs a price; write for example '\$5 at \$2/h'",
    "5 usd or 30m": r"a budget in usd needs a price",
    "$5 at 2": r"cannot read the price '2' in '\$5 at 2'; accepted are '\$2/h'",
    "$5 at $2/fortnight": r"cannot read the price '\$2/fortnight'",
    "$5 at $2/h at $3/h": r"cannot read the price",
    "$5 at $2/0 tokens": r"cannot read the price '\$2/0 tokens'",
    "$5 at $0/h": r"a price must be a finite number of dollars > 0, found 0\.0 per seconds",
    "$5 per h": r"cannot read '\$5 per h'",
    "$1.2.3 at $2/h": r"cannot read '\$1\.2\.3 at \$2/h'",
    "$0 at $2/h": r"the limit on usd must be a finite number > 0, found 0",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refuses(text: str) -> None:
    with pytest.raises(InputError, match=REFUSED[text]):
        Budget.parse(text)


@pytest.mark.parametrize("found", [None, 30, 30.0, ["30m"]])
def test_refuses_what_is_not_a_text(found: object) -> None:
    with pytest.raises(InputError, match="a budget is a text such as '30m', found"):
        Budget.parse(found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "ceilings", "message"),
    [
        ({"weeks": 1}, {}, "'weeks' is not a unit that can be spent; accepted: steps, examples, tokens, seconds"),
        ({"memory": 1}, {}, "'memory' is not a unit that can be spent"),
        ({"steps": -1}, {}, "the limit on steps must be a finite number > 0, found -1"),
        ({"steps": math.nan}, {}, "found nan"),
        ({"flops": math.inf}, {}, "found inf"),
        ({"steps": True}, {}, "found True"),
        ({"steps": "3"}, {}, "found '3'"),
        ({}, {"steps": 3}, "'steps' is not a ceiling; accepted: memory, params"),
        ({}, {"memory": 0}, "the limit on memory must be a finite number > 0, found 0"),
        ({"usd": 3}, {}, "a budget in usd needs a price"),
    ],
)
def test_refuses_bad_amounts(limits: dict[str, float], ceilings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget(limits, ceilings)


@pytest.mark.parametrize("usd", [0.0, -1.0, math.inf, math.nan])
def test_refuses_prices(usd: float) -> None:
    with pytest.raises(InputError, match="a price must be a finite number of dollars > 0"):
        Price(usd, "seconds")


def test_refuses_what_has_no_price() -> None:
    with pytest.raises(InputError, match="a price is per seconds or per tokens, found 'steps'"):
        Price(1.0, "steps")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unit", "amount", "text"),
    [
        ("seconds", 90, "90s"),
        ("seconds", 1800, "30m"),
        ("seconds", 59.5, "59.5s"),
        ("seconds", 0.1 + 0.2, "0.30000000000000004s"),
        ("tokens", 5e8, "500000000 tokens"),
        ("tokens", 1_234_567_890_123, "1234567890123 tokens"),
        ("flops", 2e15, "2e+15 flops"),
        ("usd", 5, "$5"),
        ("memory", 24 * 2**30, "24GiB"),
        ("memory", 2**29, "0.5GiB"),
        ("memory", 12345, "12345 bytes"),
    ],
)
def test_writes_amounts_as_a_person_would(unit: str, amount: float, text: str) -> None:
    assert format_amount(unit, amount) == text


@pytest.mark.parametrize(
    "text", ["30m", "10m or 3000 steps", "10m, 24GiB", "$5 at $2/h", "$3 at $0.5/M tokens or 10m", "24GiB", "1 steps, 1GiB, 300 params"]
)
def test_writes_what_it_reads(text: str) -> None:
    assert str(Budget.parse(text)) == text


# ---- properties ----------------------------------------------------------------------------------------------------------------------

positive = st.floats(min_value=1e-30, max_value=1e30)
counts = st.integers(min_value=1, max_value=10**15).map(float)


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    units = draw(st.lists(st.sampled_from(FLOWS + CEILINGS), min_size=1, unique=True))
    amounts = {unit: draw(counts if unit in WHOLE or unit == "params" else positive | counts) for unit in units}
    price = Price(draw(positive), draw(st.sampled_from(["seconds", "tokens"]))) if "usd" in units else None
    limits = {unit: amount for unit, amount in amounts.items() if unit in FLOWS}
    return Budget(limits, {unit: amount for unit, amount in amounts.items() if unit in CEILINGS}, price)


@settings(max_examples=300, deadline=None)
@given(budgets())
def test_parse_reads_back_what_str_writes(budget: Budget) -> None:
    assert Budget.parse(str(budget)) == budget


@settings(max_examples=100, deadline=None)
@given(positive, st.integers(min_value=1, max_value=10**6))
def test_times_read_back_in_every_unit(seconds: float, count: int) -> None:
    assert Budget.parse(format_amount("seconds", seconds)).limits == {"seconds": seconds}
    assert Budget.parse(format_amount("seconds", 60.0 * count)).limits == {"seconds": 60.0 * count}


shares_of = st.lists(st.floats(min_value=0.01, max_value=100), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(st.integers(min_value=8, max_value=10**12), shares_of)
def test_whole_units_split_exactly_and_proportionally(total: int, shares: list[float]) -> None:
    parts = [part.limits["tokens"] for part in Budget({"tokens": float(total)}).split(shares)]
    assert sum(parts) == total
    assert all(part == int(part) >= 1 for part in parts)
    weight = sum(map(Fraction, shares))
    exact = [total * Fraction(share) / weight for share in shares]
    if min(exact) >= 1:  # else a part that would have got nothing is lifted at the cost of the largest
        assert all(abs(part - value) < 1 for part, value in zip(parts, exact, strict=True))
        up = [value - math.floor(value) for part, value in zip(parts, exact, strict=True) if part > value]
        down = [value - math.floor(value) for part, value in zip(parts, exact, strict=True) if part < value]
        assert min(up, default=1) >= max(down, default=0)


def test_largest_remainders_get_the_rest_and_ties_go_to_the_earlier() -> None:
    assert [part.limits["steps"] for part in Budget({"steps": 10}).split([1, 1, 1])] == [4, 3, 3]
    assert [part.limits["steps"] for part in Budget({"steps": 11}).split([1, 1, 1])] == [4, 4, 3]
    assert [part.limits["steps"] for part in Budget({"steps": 10}).split([0.62, 0.19, 0.19])] == [6, 2, 2]
    # 7 parted 12 : 26 : 62 is 0.84, 1.82, 4.34
    assert [part.limits["labels"] for part in Budget({"labels": 7}).split([0.12, 0.26, 0.62])] == [1, 2, 4]
    assert [part.limits["labels"] for part in Budget({"labels": 10.9}).split([1, 1])] == [5, 5]


def test_beyond_the_exact_integers_of_floats_the_parts_are_still_even() -> None:
    parts = [part.limits["tokens"] for part in Budget({"tokens": 1e18}).split([1, 1, 1, 1, 1])]
    assert parts == [2e17] * 5


def test_no_part_goes_without_a_unit_for_then_it_would_have_no_limit() -> None:
    assert [part.limits["steps"] for part in Budget({"steps": 3}).split([8, 1, 1])] == [1, 1, 1]
    assert [part.limits["steps"] for part in Budget({"steps": 100}).split([1, 1e-9, 1])] == [49, 1, 50]
    with pytest.raises(InputError, match="3 steps cannot be divided into 4 parts of at least one"):
        Budget({"seconds": 10, "steps": 3}).split([1, 1, 1, 1])
    tiny = Budget({"seconds": 10.0}).split([1, 1e-20])
    assert [part.limits["seconds"] for part in tiny] == [10.0, 1e-19]


def test_the_last_part_absorbs_rounding() -> None:
    for total, shares in ((100.0, [1, 1, 1]), (10.0, [1, 2, 4]), (0.1, [3, 7]), (0.1, [1] * 7)):
        exact = [total * (share / sum(shares)) for share in shares]
        parts = [part.limits["seconds"] for part in Budget({"seconds": total}).split(shares)]
        assert math.fsum(exact) < total == math.fsum(parts)
        assert parts[:-1] == exact[:-1]


@settings(max_examples=200, deadline=None)
@given(positive, shares_of)
def test_real_units_split_to_rounding(total: float, shares: list[float]) -> None:
    parts = [part.limits["seconds"] for part in Budget({"seconds": total}).split(shares)]
    assert math.isclose(math.fsum(parts), total, rel_tol=2**-52)
    weight = math.fsum(shares)
    for part, share in zip(parts, shares, strict=True):
        assert math.isclose(part, total * (share / weight), rel_tol=1e-11)


@settings(max_examples=50, deadline=None)
@given(shares_of, st.sampled_from([2.0, 0.25, 1024.0]))
def test_shares_are_normalised(shares: list[float], factor: float) -> None:
    budget = Budget({"seconds": 1000.0, "tokens": 12345})
    assert budget.split(shares) == budget.split([share * factor for share in shares])


def test_every_part_keeps_ceilings_and_price_and_gets_some_of_every_flow() -> None:
    budget = Budget({"seconds": 100, "steps": 10, "usd": 3}, {"memory": 2**30, "params": 1e6}, HOURLY)
    first, second = budget.split([1, 3])
    assert first == Budget({"seconds": 25, "steps": 3, "usd": 0.75}, budget.ceilings, HOURLY)
    assert second == Budget({"seconds": 75, "steps": 7, "usd": 2.25}, budget.ceilings, HOURLY)
    assert Budget({}, {"memory": 5}).split([1, 2]) == [Budget({}, {"memory": 5})] * 2


@pytest.mark.parametrize("shares", [[], [0.0], [1.0, -1.0], [1.0, math.nan], [math.inf]])
def test_refuses_shares(shares: list[float]) -> None:
    with pytest.raises(InputError, match="shares must be finite numbers > 0, found"):
        Budget({"steps": 10}).split(shares)


@settings(max_examples=200, deadline=None)
@given(st.integers(min_value=8, max_value=10**9), shares_of, st.data())
def test_what_a_part_leaves_rolls_over(total: int, shares: list[float], data: st.DataObject) -> None:
    """Cut each stage from what remains: whatever the stages before the last leave, all is spent at the end and no stage goes without."""
    remaining = {"tokens": float(total), "seconds": 1024.0}
    first = Budget(remaining).split(shares)
    for i in range(len(shares)):
        part = Budget(remaining).split(shares[i:])[0].limits
        assert part["tokens"] >= min(first[i].limits["tokens"], 1)
        last = i == len(shares) - 1
        tokens = part["tokens"] if last else float(data.draw(st.integers(min_value=0, max_value=int(part["tokens"]))))
        seconds = part["seconds"] if last else part["seconds"] * data.draw(st.floats(min_value=0, max_value=1))
        remaining = {"tokens": remaining["tokens"] - tokens, "seconds": remaining["seconds"] - seconds}
    assert remaining == {"tokens": 0.0, "seconds": 0.0}


@settings(max_examples=50, deadline=None)
@given(st.integers(min_value=8, max_value=10**6), shares_of)
def test_spent_to_the_last_every_stage_gets_what_was_planned(total: int, shares: list[float]) -> None:
    planned = [part.limits["seconds"] for part in Budget({"seconds": float(total)}).split(shares)]
    remaining = float(total)
    for i, plan in enumerate(planned):
        cut = Budget({"seconds": remaining}).split(shares[i:])[0].limits["seconds"]
        assert math.isclose(cut, plan, rel_tol=1e-9)
        remaining -= cut
    assert remaining == 0.0
