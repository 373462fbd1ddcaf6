"""Small floating point: torch's own casts bit by bit, tables of values, scales, and what is not finite."""

from __future__ import annotations

import pytest
import torch

from outlay.formats import E2M1, E2M3, E3M2, E4M3, E5M2, FP16, SmallFloat
from outlay.testing import check_format


def through(form: SmallFloat, x: torch.Tensor, draw: torch.Generator | None = None) -> torch.Tensor:
    return form.decode(form.encode(x, draw), tuple(x.shape))


@pytest.mark.parametrize("form", [E4M3, E5M2, FP16, SmallFloat(4, 3, "nan", "row"), SmallFloat(3, 4, "ieee", "tensor")], ids=str)
def test_contract(form: SmallFloat) -> None:
    check_format(form, cuts=form.scaling == "none")


@pytest.mark.parametrize("form", [E2M1, E3M2, E2M3], ids=str)
def test_contract_of_formats_for_scales(form: SmallFloat) -> None:
    check_format(SmallFloat(form.exponent, form.significand, form.special, "block", 16))


def every_float_between(low: float, high: float) -> torch.Tensor:
    """All single-precision numbers whose lower 12 bits are 0, 1 or 2048 (ties among them), of both signs, with magnitudes in [low, high]."""
    upper = torch.arange(0, 1 << 31, 1 << 12, dtype=torch.int64)
    bits = torch.cat([upper, upper + 1, upper + 2048]).to(torch.int32)
    x = bits.view(torch.float32)
    x = x[(x >= low) & (x <= high)]
    return torch.cat([x, -x])


@pytest.mark.parametrize(
    ("form", "dtype"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2), (FP16, torch.float16)], ids=["e4m3", "e5m2", "fp16"]
)
def test_rounding_is_that_of_torch_bit_by_bit(form: SmallFloat, dtype: torch.dtype) -> None:
    x = every_float_between(0.0, form.grid().largest)
    mine, theirs = form.encode(x)["values"], x.to(dtype)
    kind = torch.int16 if dtype.itemsize == 2 else torch.uint8
    assert len(x) > 100_000
    assert mine.dtype == dtype
    assert torch.equal(mine.view(kind), theirs.view(kind))


@pytest.mark.parametrize(("form", "dtype"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)], ids=["e4m3", "e5m2"])
def test_codes_are_those_of_torch(form: SmallFloat, dtype: torch.dtype) -> None:
    every = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    finite = every.isfinite()
    assert torch.equal(form.grid().codes(every)[finite], torch.arange(256)[finite])
    assert torch.equal(form.grid().numbers(torch.arange(256))[finite], every[finite])
    assert not form.grid().numbers(torch.arange(256))[~finite].isfinite().any()


def test_numbers_by_hand() -> None:
    assert E2M1.grid().positive().tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert E2M3.grid().positive()[[1, 7, 8, 31]].tolist() == [0.125, 0.875, 1.0, 7.5]
    assert E3M2.grid().positive()[[1, 4, 31]].tolist() == [0.0625, 0.25, 28.0]
    assert (E4M3.grid().largest, E5M2.grid().largest, FP16.grid().largest) == (448.0, 57344.0, 65504.0)


def test_beyond_the_largest_number_that_one_is_taken() -> None:
    assert torch.equal(through(E4M3, torch.tensor([1e6, -500.0])), torch.tensor([448.0, -448.0]))
    assert torch.equal(through(E2M1, torch.tensor([7.0, -torch.inf])), torch.tensor([6.0, -6.0]))


def test_what_is_not_finite_stays_so_where_there_is_a_code() -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0])
    assert through(E4M3, x).isnan().tolist() == [True, True, True, False]
    assert through(E5M2, x)[1:3].tolist() == [torch.inf, -torch.inf] and through(E5M2, x)[0].isnan()
    assert through(SmallFloat(3, 4, "nan"), x).isnan().tolist() == [True, True, True, False]
    rows = torch.tensor([[torch.nan, 1.0], [3.0, 1.0], [torch.inf, 1.0]])
    assert through(SmallFloat(2, 1, "none", "row"), rows).isnan().all(1).tolist() == [True, False, True]


@pytest.mark.parametrize("scaling", ["tensor", "row", "block"])
def test_scaled_numbers_keep_the_largest_element_and_their_relative_error(scaling: str) -> None:
    form = SmallFloat(4, 3, "nan", scaling, 8)  # type: ignore[arg-type]
    x = torch.randn(4, 24, generator=torch.Generator().manual_seed(0)) * 1e-4
    back = through(form, x)
    normal = x.abs() > x.abs().max() * 2**-6 / 448 * 1.01
    assert bool(((back - x).abs() <= x.abs() * 2**-4)[normal].all()) and int(normal.sum()) > 90
    top = x.abs() == x.abs().max()
    assert float((back[top] / x[top] - 1).abs()) < 2**-15
    # without the scale all would be subnormal
    assert float((through(E4M3, x) - x).norm()) > 10 * float((back - x).norm())


@pytest.mark.parametrize("form", [SmallFloat(4, 3, "nan", "row"), SmallFloat(5, 10, "ieee", "row")], ids=["e4m3", "fp16"])
def test_scaled_numbers_are_exact_products_and_not_cut_off(form: SmallFloat) -> None:
    x = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)) * torch.logspace(-15, 15, 2000)[:, None]
    kept = form.encode(x)
    back, again = form.decode(kept, (2000, 8)), form.encode(form.decode(kept, (2000, 8)))
    assert torch.equal(kept["scales"], again["scales"]) and torch.equal(kept["values"].float(), again["values"].float())
    assert bool((back.abs().amax(1) >= x.abs().amax(1)).all())


def test_bounds_of_subnormal_numbers() -> None:
    x = torch.linspace(-(2**-6), 2**-6, 1001)
    assert float((through(E4M3, x) - x).abs().max()) <= 2**-10
    draw = torch.Generator().manual_seed(0)
    assert 2**-10 < float((through(E4M3, x, draw) - x).abs().max()) < 2**-9


def test_wrong_fields_are_refused() -> None:
    with pytest.raises(ValueError, match=r"exponent must lie in \[1, 5\] and significand be >= 1, found 6 and 1"):
        SmallFloat(6, 1)
    with pytest.raises(ValueError, match="must leave a code within 8 bits, or be 5 and 10 as in fp16, found 9 bits"):
        SmallFloat(5, 3)
