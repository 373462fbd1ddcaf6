"""Budget: what may be spent. An immutable set of limits in named units; the first exhausted one ends the run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, get_args

from outlay.errors import InputError

Flow = Literal["steps", "examples", "tokens", "seconds", "flops", "rollouts", "new_tokens", "labels", "usd"]
Ceiling = Literal["memory", "params"]

FLOWS: tuple[Flow, ...] = get_args(Flow)
CEILINGS: tuple[Ceiling, ...] = get_args(Ceiling)
#: flows that are counted in whole numbers; splitting them loses nothing
WHOLE: frozenset[str] = frozenset({"steps", "examples", "tokens", "rollouts", "new_tokens", "labels"})

#: flows that are paid for at once, when a stage begins: used up, they end nothing and tell nothing of how far a run has come
BOUGHT: frozenset[str] = frozenset({"labels"})

ACCEPTED = (
    "accepted are times (90s, 30m, 1h30m, 2d), counts (3k steps, 500M tokens, 20k rollouts, 1000 labels, 2e5 examples, 1M new_tokens), "
    "compute (2e15 flops, 3 PFLOPs), money with a price ($5 at $2/h, 3 usd at 0.5 usd/M tokens), ceilings (24GiB, 10M params), "
    "and several of them joined by ',' or 'or'"
)

_SCALE = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SECONDS = {"s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
            "h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400}  # fmt: skip
_BYTES = {"byte": 1, "bytes": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_COUNTS: dict[str, str] = {
    "step": "steps", "example": "examples", "token": "tokens", "flop": "flops", "rollout": "rollouts", "new_token": "new_tokens",
    "new token": "new_tokens", "label": "labels", "param": "params", "parameter": "params"}  # fmt: skip

_DIGITS = r"\d+(?:_\d{3})*(?:\.\d+)?(?:[eE][+-]?\d+)?|\d{1,3}(?:,\d{3})+|\.\d+"
_NUMBER = rf"(?P<number>{_DIGITS})"
_DOLLARS = rf"(?:\$\s*(?P<dollars>{_DIGITS})|(?P<amount>{_DIGITS})\s*usd)"
# a comma between a digit and three digits belongs to a number: 10,000 steps
_JOINTS = re.compile(r"\s+or\s+|\s+and\s+|(?<!\d),|,(?!\d{3}(?:\D|$))|;")
_MONEY = re.compile(rf"^{_DOLLARS}(?:\s+at\s+(?P<price>.+))?$", re.IGNORECASE)
_PRICE = re.compile(rf"^{_DOLLARS}\s*(?:/|per)\s*(?P<per>.+)$", re.IGNORECASE)
_TIME_PART = re.compile(rf"({_DIGITS})\s*([a-z]+)\s*")
_COUNT = re.compile(rf"^{_NUMBER}\s*(?P<scale>[kKMGBTPE]?)\s*(?P<unit>[A-Za-z_][A-Za-z_ ]*)$")
_MEMORY = re.compile(rf"^{_NUMBER}\s*(?P<unit>[KMGT]i?B|bytes?)$")


@dataclass(frozen=True)
class Price:
    """What one unit of ``per`` costs, so that a budget in money can be spent.

    Args:
        usd: dollars for one unit of ``per``, > 0.
        per: ``"seconds"`` or ``"tokens"``.

    Raises:
        InputError: when ``usd`` is not finite and positive, or ``per`` is something else.
    """

    usd: float
    per: Literal["seconds", "tokens"]

    def __post_init__(self) -> None:
        if self.per not in ("seconds", "tokens"):
            raise InputError(f"a price is per seconds or per tokens, found {self.per!r}")
        if not math.isfinite(self.usd) or self.usd <= 0:
            raise InputError(f"a price must be a finite number of dollars > 0, found {self.usd!r} per {self.per}")


@dataclass(frozen=True)
class Budget:
    """Limits in named units. Flows are used up and the first exhausted one ends the run; ceilings may never be passed.

    Args:
        limits: flow -> amount, each finite and > 0. Units: ``steps`` (optimizer updates), ``examples``, ``tokens`` (positions that are not
            padding), ``seconds`` (wall clock), ``flops``, ``rollouts``, ``new_tokens``, ``labels``, ``usd``.
        ceilings: ``memory`` in bytes, ``params`` as a count.
        price: needed for, and only meaningful with, a limit in ``usd``.

    Raises:
        InputError: for an unknown unit, an amount that is not finite and positive, or money without a price.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    ceilings: Mapping[str, float] = field(default_factory=dict)
    price: Price | None = None

    def __post_init__(self) -> None:
        for unit, amount in self.limits.items():
            if unit not in FLOWS:
                raise InputError(f"{unit!r} is not a unit that can be spent; accepted: {', '.join(FLOWS)}")
            _check_amount(unit, amount)
        for unit, amount in self.ceilings.items():
            if unit not in CEILINGS:
                raise InputError(f"{unit!r} is not a ceiling; accepted: {', '.join(CEILINGS)}")
            _check_amount(unit, amount)
        if "usd" in self.limits and self.price is None:
            raise InputError("a budget in usd needs a price; write for example '$5 at $2/h' or '$5 at $0.5/M tokens'")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget as a person writes it: ``30m``, ``500M tokens``, ``10m or 3k steps``, ``10m, 24GiB``, ``$5 at $2/h``.

        Raises:
            InputError: naming the part that could not be read and the accepted forms.
        """
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"a budget is a text such as '30m', found {text!r}; {ACCEPTED}")
        limits: dict[str, float] = {}
        ceilings: dict[str, float] = {}
        price: Price | None = None
        for part in _JOINTS.split(text.strip()):
            unit, amount, part_price = _parse_part(part.strip(), text)
            side = ceilings if unit in CEILINGS else limits
            if unit in side:
                raise InputError(f"{text!r} limits {unit} twice; keep one of them")
            side[unit] = amount
            price = part_price or price
        return cls(limits, ceilings, price)

    def __str__(self) -> str:
        parts = {unit: format_amount(unit, amount) for unit, amount in self.limits.items()}
        if "usd" in parts and self.price:
            parts["usd"] += f" at {_format_price(self.price)}"
        head = " or ".join(parts.values())
        return ", ".join(([head] if head else []) + [format_amount(unit, amount) for unit, amount in self.ceilings.items()])

    def split(self, shares: Sequence[float]) -> list[Budget]:
        """Divide every flow by ``shares`` (each > 0; they are normalised). Ceilings are not divided: each part keeps them.

        Whole units are divided by largest remainder and no part goes without, so the parts sum to the total exactly. What a part leaves
        rolls over when its follower is cut from what remains: ``meter.remaining().split(shares_still_to_come)[0]``.

        Raises:
            InputError: when there is no share, one is not a finite positive number, or there are fewer whole units than parts.
        """
        if not shares or any(not math.isfinite(share) or share <= 0 for share in shares):
            raise InputError(f"shares must be finite numbers > 0, found {list(shares)}")
        parts: list[dict[str, float]] = [{} for _ in shares]
        for unit, amount in self.limits.items():
            if unit in WHOLE and amount < len(shares):
                raise InputError(
                    f"{format_amount(unit, amount)} cannot be divided into {len(shares)} parts of at least one; raise it or cut fewer"
                )
            for part, given in zip(parts, _whole(shares, amount) if unit in WHOLE else _real(shares, amount), strict=True):
                part[unit] = given
        return [Budget(part, self.ceilings, self.price) for part in parts]


def _check_amount(unit: str, amount: float) -> None:
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount) or amount <= 0:
        raise InputError(f"the limit on {unit} must be a finite number > 0, found {amount!r}")


def _whole(shares: Sequence[float], total: float) -> list[float]:
    """Whole numbers >= 1 that sum to ``floor(total)``: floors first, the rest to the largest remainders (ties to the earlier).

    Where that leaves a part with nothing, the part with most gives it one: a part without the unit would have no limit on it at all.
    """
    whole = math.floor(total)
    weight = sum(Fraction(share) for share in shares)
    exact = [whole * Fraction(share) / weight for share in shares]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: whole - sum(counts)]:
        counts[i] += 1
    while 0 in counts:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(0)] += 1
    return [float(count) for count in counts]


def _real(shares: Sequence[float], total: float) -> list[float]:
    """Proportional parts; the last one absorbs rounding, so that adding them gives ``total``."""
    weight = math.fsum(shares)
    exact = [total * (share / weight) for share in shares]
    rest = total - math.fsum(exact[:-1])
    return [*exact[:-1], rest if rest > 0 else exact[-1]]


def _parse_part(part: str, text: str) -> tuple[str, float, Price | None]:
    money = _MONEY.match(part)
    if money:
        price = _parse_price(money["price"], text) if money["price"] else None
        return "usd", _number(money["dollars"] or money["amount"], text), price
    memory = _MEMORY.match(part)
    if memory:
        return "memory", _number(memory["number"], text) * _BYTES[memory["unit"]], None
    seconds = _parse_time(part)
    if seconds is not None:
        return "seconds", seconds, None
    count = _COUNT.match(part)
    if count:
        word = " ".join(count["unit"].split())
        unit = _unit_name(word)
        if unit is not None:
            amount = _number(count["number"], text) * _SCALE[count["scale"]]
            return unit, _whole_amount(unit, amount, part) if unit in WHOLE or unit == "params" else amount, None
    raise InputError(f"cannot read {part!r} in the budget {text!r}; {ACCEPTED}")


def _unit_name(word: str) -> str | None:
    if word.lower() in {"flops", "flop"}:
        return "flops"
    return _COUNTS.get(word) or _COUNTS.get(word.removesuffix("s"))


def _parse_time(part: str) -> float | None:
    """Seconds of ``1h30m``, ``90 s`` or ``1.5 hours``; None when it is not a time. Capital M is a million, never minutes."""
    position, total = 0, 0.0
    for match in _TIME_PART.finditer(part):
        if match.start() != position or match[2] not in _SECONDS:
            return None
        total += _number(match[1], part) * _SECONDS[match[2]]
        position = match.end()
    return total if position == len(part) and position > 0 else None


def _parse_price(text: str, whole: str) -> Price:
    match = _PRICE.match(text.strip())
    if match:
        usd, per = _number(match["dollars"] or match["amount"], whole), match["per"].strip()
        if per in _SECONDS:
            return Price(usd / _SECONDS[per], "seconds")
        tokens = re.fullmatch(r"([1-9]\d*)?\s*([kMBG]?)\s*(?:tokens?)", per)
        if tokens:
            return Price(usd / (float(tokens[1] or 1) * _SCALE[tokens[2]]), "tokens")
    raise InputError(f"cannot read the price {text!r} in {whole!r}; accepted are '$2/h', '0.001 usd/s', '$0.5/M tokens'")


def _number(text: str, whole: str) -> float:
    number = float(text.replace("_", "").replace(",", ""))
    if math.isinf(number):
        raise InputError(f"the number {text!r} in the budget {whole!r} is too large; write a finite one")
    return number


def _whole_amount(unit: str, amount: float, part: str) -> float:
    """Refuse a part of a step or token; a scale such as 0.0057M may miss a whole number by rounding alone."""
    if math.isinf(amount) or abs(amount - round(amount)) > 1e-9 * amount:
        raise InputError(f"{unit} are counted in whole numbers, found {part!r}")
    return float(round(amount))


def format_amount(unit: str, amount: float) -> str:
    """Write an amount so that ``Budget.parse`` reads the same number back: ``90s``, ``500000000 tokens``, ``$5``, ``24GiB``."""
    if unit == "seconds":
        minutes = amount // 60
        return f"{_digits(minutes)}m" if amount >= 60 and minutes * 60 == amount else f"{_digits(amount)}s"
    if unit == "usd":
        return f"${_digits(amount)}"
    if unit == "memory":
        return f"{_digits(amount / 2**30)}GiB" if amount % 2**20 == 0 else f"{_digits(amount)} bytes"
    return f"{_digits(amount)} {unit}"


def _format_price(price: Price) -> str:
    """Write a price per hour or million tokens, or else per second or token: the first that reads back as the same number."""
    forms = (("h", 3600.0), ("s", 1.0)) if price.per == "seconds" else (("M tokens", 1e6), ("token", 1.0))
    texts = ((digits(price.usd * scale), unit, scale) for unit, scale in forms for digits in ("{:.12g}".format, _digits))
    return next(f"${text}/{unit}" for text, unit, scale in texts if float(text) / scale == price.usd)


def _digits(number: float) -> str:
    """The shortest of ``5000``, ``2.5e+15`` and all digits that reads back as the same number."""
    if number == int(number) and number < 1e15:
        return str(int(number))
    short = f"{number:.12g}"
    return short if float(short) == number else repr(float(number))
