"""Amounts in words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.reporting.format import amount, compact, duration, number, percent, quantity, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0004, "0ms"),
        (0.85, "850ms"),
        (0.9996, "1.0s"),
        (18.26, "18.3s"),
        (59.96, "1m 00s"),
        (252, "4m 12s"),
        (3599.6, "1h 00m"),
        (3900, "1h 05m"),
        (86399, "1d 00h"),
        (2 * 86400 + 3 * 3600, "2d 03h"),
        (-5, "-5.0s"),
        (math.nan, "?"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 1e7))
def test_duration_is_short_and_carries(seconds: float) -> None:
    text = duration(seconds)
    assert len(text) <= 8 and "60s" not in text and "60m" not in text and "24h" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (950, "950"),
        (999.6, "1.00k"),
        (13_400, "13.4k"),
        (1_204_000, "1.20M"),
        (999_960, "1.00M"),
        (0.5, "0.5"),
        (-13_400, "-13.4k"),
        (2.5e21, "2.5e+21"),
        (math.nan, "nan"),
    ],
)
def test_compact(value: float, text: str) -> None:
    assert compact(value) == text


@given(st.floats(1e3, 9.9e20))
def test_compact_is_true_to_three_digits(value: float) -> None:
    text = compact(value)
    factors = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    told = float(text[:-1]) * factors[text[-1]] if text[-1] in factors else float(text)
    assert told == pytest.approx(value, rel=6e-3 if text[-1] in factors else 6e-2)
    assert len(text) <= 5 or "e" in text


def test_amounts_carry_their_unit() -> None:
    assert amount("seconds", 252) == "4m 12s"
    assert amount("usd", 0.0341) == "$0.0341"
    assert amount("usd", 1234.5) == "$1,234.50"
    assert amount("memory", 1.5 * 2**30) == "1.50 GiB"
    assert amount("flops", 2.1e15) == "2.10 PFLOPs"
    assert amount("flops", 999) == "999 FLOPs"
    assert amount("tokens", 12_345) == "12,345 tokens"
    assert amount("new_tokens", 12_345_678) == "12.3M new tokens"
    assert quantity("tokens", 12.5) == "12.5"
    assert amount("tokens", None) == "–"
    assert quantity("tokens", math.inf) == "inf"
    assert size(512) == "512 B"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0%"),
        (0.0005, "0.05%"),
        (0.034, "3.4%"),
        (0.42, "42%"),
        (0.9999, "99.9%"),
        (1, "100%"),
        (1.002, "100.2%"),
        (1.00001, "100.1%"),
        (1.2, "120%"),
        (math.nan, "?"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_number() -> None:
    assert [number(value) for value in (1.23456, 0.0125, 0.0000212, 1234567.0, 0.0, None, math.nan)] == [
        "1.235",
        "0.0125",
        "2.12e-05",
        "1.23e+06",
        "0",
        "–",
        "nan",
    ]
