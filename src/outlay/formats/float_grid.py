"""The values of floating-point formats with few bits, by their numbers of exponent and significand bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from outlay.formats.base import exponent_of, power_of_two, to_whole

#: what the largest codes stand for: infinities and nan, as in IEEE 754; nan alone, in the last one; or numbers like all others
Special = Literal["ieee", "nan", "none"]

#: types that torch has, by the bits and the special codes
DTYPES: dict[tuple[int, int, Special], torch.dtype] = {
    (4, 3, "nan"): torch.float8_e4m3fn,
    (5, 2, "ieee"): torch.float8_e5m2,
    (5, 10, "ieee"): torch.float16,
}


@dataclass(frozen=True)
class FloatGrid:
    """+-1.f 2^e with ``significand`` bits of f, and +-0.f at the lowest e (subnormal numbers); the bias of e is 2^(exponent - 1) - 1.

    Args:
        exponent: bits, from 1 to 5.
        significand: bits kept of it, >= 1.
        special: what the largest codes stand for.
    """

    exponent: int
    significand: int
    special: Special

    def __post_init__(self) -> None:
        if not 1 <= self.exponent <= 5 or self.significand < 1:
            raise ValueError(f"exponent must lie in [1, 5] and significand be >= 1, found {self.exponent} and {self.significand}")
        if self.bits > 8 and self.dtype is None:
            raise ValueError(f"exponent and significand must leave a code within 8 bits, or be 5 and 10 as in fp16, found {self.bits} bits")

    @property
    def bits(self) -> int:
        """Of a code, the sign included."""
        return 1 + self.exponent + self.significand

    @property
    def dtype(self) -> torch.dtype | None:
        """torch's type of these values."""
        return DTYPES.get((self.exponent, self.significand, self.special))

    @property
    def lowest(self) -> int:
        """Exponent of the least normal number and of all subnormal ones."""
        return 2 - 2 ** (self.exponent - 1)

    @property
    def top_code(self) -> int:
        """Code of the largest number."""
        every = 2 ** (self.exponent + self.significand)
        return every - 1 - {"ieee": 2**self.significand, "nan": 1, "none": 0}[self.special]

    def value(self, code: int) -> float:
        """Return the number of a code without sign."""
        field, fraction = divmod(code, 2**self.significand)
        whole = fraction + (2**self.significand if field else 0)
        return float(whole * 2.0 ** (self.lowest + max(field, 1) - 1 - self.significand))

    @property
    def largest(self) -> float:
        """The largest number."""
        return self.value(self.top_code)

    def positive(self) -> torch.Tensor:
        """Return all numbers from 0 up; an element's index is its code."""
        return torch.tensor([self.value(code) for code in range(self.top_code + 1)])

    def round(self, x: torch.Tensor, draw: torch.Generator | None) -> torch.Tensor:
        """Return the nearest number, halves to the even code, or one of both neighbours; beyond the largest that one. ``x`` in single precision.

        What is not finite is returned as it is, infinities as nan where only that has a code.
        """
        step = power_of_two(exponent_of(x).clamp(self.lowest, 16) - self.significand)
        near = (to_whole(x / step, draw) * step).clamp(-self.largest, self.largest)
        return torch.where(x.isfinite(), near, torch.nan if self.special == "nan" else x)

    def codes(self, rounded: torch.Tensor) -> torch.Tensor:
        """Return the codes of numbers; of what is not finite the last one, nan where that is special."""
        sign = torch.signbit(rounded).to(torch.int64) << (self.bits - 1)
        found = torch.searchsorted(self.positive().to(rounded.device), rounded.abs().contiguous())
        last = 2 ** (self.bits - 1) - 1
        return sign | torch.where(rounded.isfinite(), found, last)

    def numbers(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the numbers of codes."""
        half = self.positive()
        whole = torch.full((2 ** (self.bits - 1),), torch.nan)
        whole[: len(half)] = half
        return torch.cat([whole, -whole]).to(codes.device)[codes]
