"""Amounts as people read them."""

import pytest

from outlay.planning.text import amount, duration, short, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (950, "950"),
        (0.25, "0.25"),
        (999.6, "1k"),
        (1000, "1k"),
        (13_400, "13.4k"),
        (135e6, "135M"),
        (2.05e9, "2.05G"),
        (3e15, "3P"),
        (5e22, "50000E"),
    ],
)
def test_short(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(512, "512 bytes"), (1024, "1 KiB"), (3.2 * 2**30, "3.2 GiB"), (1023.9 * 2**20, "1 GiB"), (20 * 2**40, "20 TiB")]
)
def test_size(value: float, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0852, "85.2ms"), (12.5, "12.5s"), (252, "4m 12s"), (3599.7, "1h 00m"), (3900, "1h 05m")])
def test_duration(value: float, text: str) -> None:
    assert duration(value) == text


def test_amounts_carry_their_unit() -> None:
    assert [amount("usd", 0.25), amount("seconds", 3), amount("memory", 2048), amount("flops", 2e12), amount("new_tokens", 5)] == [
        "$0.25", "3s", "2 KiB", "2T FLOPs", "5 new tokens",
    ]  # fmt: skip
