"""The contract of formats refuses those that break it, each by its rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch

from outlay.formats import Bf16, Integer
from outlay.layout import Layout, Shape, Slot
from outlay.testing import check_format


@dataclass(frozen=True)
class Thin(Integer):
    def layout(self, shape: Shape) -> Layout:
        return super().layout(shape) | {"scales": Slot((1,), torch.float32)}


class Greedy(Bf16):
    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        kept = super().encode(x, draw)
        x.add_(1)
        return kept


class Double(Bf16):
    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        return super().decode(kept, shape).double()


class Deaf(Bf16):
    """Ignores the generator."""

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        return super().encode(x)


class Cutting(Bf16):
    """Rounds towards zero where it should go to the nearest."""

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        if draw is not None:
            return super().encode(x, draw)
        return {"values": (x.float().contiguous().view(torch.int32) & -65536).view(torch.float32).bfloat16()}


class Loaded(Bf16):
    """Goes up with half the probability that it should."""

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        if draw is None:
            return super().encode(x)
        whole = x.float().contiguous()
        noise = torch.randint(0, 1 << 15, whole.shape, generator=draw, dtype=torch.int32)
        return {"values": ((whole.view(torch.int32) + noise) & -65536).view(torch.float32).bfloat16()}


class Wild(Bf16):
    """Right on average, with noise over more than both neighbours."""

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        if draw is None:
            return super().encode(x)
        return super().encode(x.float() * (1 + 0.02 * (torch.rand(x.shape, generator=draw) - 0.5)), draw)


class Global(Bf16):
    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        torch.rand(1)
        return super().encode(x, draw)


class Shifted(Bf16):
    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        return super().decode(kept, shape) + 1e-3


class Shrinking(Bf16):
    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        return super().decode(kept, shape) * 0.5


class Lopsided(Bf16):
    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        values = super().decode(kept, shape)
        return torch.where(values < -3, -3.0, values)


@dataclass(frozen=True)
class Floored(Integer):
    """Lists its values and takes the one below."""

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        scale = 2.0 ** torch.ceil(torch.log2(x.float().abs().amax() / 100 if x.numel() else torch.tensor(1.0))).nan_to_num(0.0, 1.0, 0.0)
        kept = super().encode(x, draw)
        if draw is not None or not kept["scales"].numel():
            return kept
        steps = (x.float() / scale).trunc().to(torch.int64)
        return {"codes": (steps & 255).reshape(-1).to(torch.uint8), "scales": torch.full_like(kept["scales"], float(scale))}


@pytest.mark.parametrize(
    ("form", "rule"),
    [
        (Thin(scaling="row"), "layout is exact"),
        (Greedy(), "what is encoded stays as it is"),
        (Double(), "decode returns the tensor in single precision"),
        (Deaf(), "random rounding is right on average"),
        (Cutting(), "rounding goes to the nearest value"),
        (Loaded(), "random rounding is right on average"),
        (Wild(), "random rounding gives one of the two neighbours"),
        (Global(), "never from a global generator"),
        (Shifted(), "zero stays zero|encoding what was decoded changes nothing"),
        (Shrinking(), "encoding what was decoded changes nothing"),
        (Lopsided(), "a negative number is kept as its opposite is"),
        (Floored(), "rounding goes to the nearest value"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_broken_formats_are_refused(form: Bf16, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_format(form)
