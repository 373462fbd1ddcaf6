"""How each reasoning task is asked in its short form, and the generators that stand in where reasoning-gym is not installed."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from outlay.tasks.corpora import documents

Entry = dict[str, Any]
"""What a provider makes: ``question``, ``answer`` and ``metadata``, named as in reasoning-gym."""


class Stripped(NamedTuple):
    """A problem reduced to its operands, the answer in the same notation, and the key that identifies the question."""

    prompt: str
    answer: str
    key: str


# --- short forms: one per task, each opened by its own sign so that one model can learn them all -----------------------------------


def _commuting(sign: str, operands: list[int], answer: str) -> Stripped:
    return Stripped(f"{sign}{','.join(map(str, operands))}=", answer, " ".join(map(str, sorted(operands))))


def strip_sum(entry: Entry) -> Stripped:
    expression = entry["metadata"]["expression"].replace(" ", "")
    terms = sorted(int(term) for term in re.findall(r"[+-]?\d+", expression))
    return Stripped(f"+{expression}=", entry["answer"], " ".join(map(str, terms)))


def strip_product(entry: Entry) -> Stripped:
    factors = [int(factor) for factor in entry["metadata"]["expression"].split("*")]
    short = _commuting("*", factors, entry["answer"])
    return short._replace(prompt=short.prompt.replace(",", "*"))


def strip_gcd(entry: Entry) -> Stripped:
    return _commuting("g", entry["metadata"]["numbers"], entry["answer"])


def strip_lcm(entry: Entry) -> Stripped:
    return _commuting("l", entry["metadata"]["numbers"], entry["answer"])


def strip_reverse(entry: Entry) -> Stripped:
    word = entry["metadata"]["word"].lower()
    return Stripped(f"r{word}=", word[::-1], word)


def strip_sort(entry: Entry) -> Stripped:
    numbers = [int(float(number)) for number in entry["metadata"]["original_numbers"]]
    falling = entry["metadata"]["direction"] == "descending"
    ordered = sorted(numbers, reverse=falling)
    return _commuting(">" if falling else "<", numbers, ",".join(map(str, ordered)))


def strip_count(entry: Entry) -> Stripped:
    letter, text = entry["metadata"]["target_letter"], " ".join(entry["metadata"]["span"]).lower()
    return Stripped(f"c{letter},{text}=", entry["answer"], f"{letter} {text}")


def strip_base(entry: Entry) -> Stripped:
    about = entry["metadata"]
    prompt = f"b{about['source_repr']},{about['source_base']},{about['target_base']}="
    return Stripped(prompt, about["target_repr"], prompt)


def strip_factor(entry: Entry) -> Stripped:
    number = entry["metadata"]["number"]
    return Stripped(f"p{number}=", "*".join(map(str, entry["metadata"]["factors"])), str(number))


def strip_fraction(entry: Entry) -> Stripped:
    about = entry["metadata"]
    key = f"{about['numerator']}/{about['denominator']}"
    return Stripped(f"f{key}=", f"{about['simplified_numerator']}/{about['simplified_denominator']}", key)


def strip_bits(entry: Entry) -> Stripped:
    number = entry["metadata"]["number"]
    return Stripped(f"n{number}=", entry["answer"], str(number))


# --- built-in generators: same fields, same spaces, same entries as the reasoning-gym datasets they stand in for ---------------------


def make_sum(fields: Mapping[str, Any], draw: random.Random) -> Entry:
    digits = draw.randint(fields["min_digits"], fields["max_digits"])
    low, high = (0 if digits == 1 else 10 ** (digits - 1)), 10**digits - 1
    count = draw.randint(fields["min_terms"], fields["max_terms"])
    sizes = [draw.randint(low, high) for _ in range(count)]
    signs = [1, *(draw.choice((1, -1)) for _ in range(count - 1))]
    expression = "".join(f" {'+' if sign > 0 else '-'} {size}" for sign, size in zip(signs, sizes, strict=True)).removeprefix(" + ")
    total = sum(sign * size for sign, size in zip(signs, sizes, strict=True))
    return {"question": f"What is {expression}?", "answer": str(total), "metadata": {"expression": expression}}


def make_gcd(fields: Mapping[str, Any], draw: random.Random) -> Entry:
    numbers = [draw.randint(1, fields["max_value"]) for _ in range(2)]
    question = f"What is the greatest common divisor of {numbers[0]} and {numbers[1]}?"
    return {"question": question, "answer": str(math.gcd(*numbers)), "metadata": {"numbers": numbers}}


def make_reverse(fields: Mapping[str, Any], draw: random.Random) -> Entry:
    word = draw.choice(_words(fields["min_word_len"], fields["max_word_len"]))
    return {"question": f"Write this word backward: {word}", "answer": word[::-1], "metadata": {"word": word}}


@cache
def _words(shortest: int, longest: int) -> list[str]:
    """Lower-case words of Python's language reference, which every Python carries."""
    text = "\n".join(document.text for document in documents("manual"))
    return sorted({word for word in re.findall(r"\b[a-z]+\b", text) if shortest <= len(word) <= longest})
