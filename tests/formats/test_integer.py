"""Integers: scales, zero points, bounds, and exact repetition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.formats import Integer
from outlay.formats.groups import pack, packed_bytes, unpack
from outlay.layout import layout_bytes
from outlay.testing import check_format


def through(form: Integer, x: torch.Tensor) -> torch.Tensor:
    return form.decode(form.encode(x), tuple(x.shape))


@pytest.mark.parametrize(
    "form",
    [
        Integer(8),
        Integer(2, scaling="block", block=16),
        Integer(5, scaling="tensor"),
        Integer(8, symmetric=False),
        Integer(2, symmetric=False, scaling="block", block=16),
        Integer(3, symmetric=False, scaling="tensor"),
    ],
    ids=str,
)
def test_contract(form: Integer) -> None:
    check_format(form)


def test_symmetric_by_hand() -> None:
    # L = 7: a step of 0.5 and of 1
    x = torch.tensor([[3.5, -0.7, 0.0, 1.3], [-7.0, 2.6, 0.4, 7.0]])
    assert torch.equal(through(Integer(4), x), torch.tensor([[3.5, -0.5, 0.0, 1.5], [-7.0, 3.0, 0.0, 7.0]]))
    kept = Integer(4).encode(x)
    assert torch.equal(kept["scales"], torch.tensor([0.5, 1.0]))
    assert kept["codes"].tolist() == [7 | (15 << 4), 0 | (3 << 4), 9 | (3 << 4), 0 | (7 << 4)]
    assert torch.equal(through(Integer(4, scaling="tensor"), x), torch.tensor([[4.0, -1.0, 0.0, 1.0], [-7.0, 3.0, 0.0, 7.0]]))


def test_asymmetric_by_hand() -> None:
    # N = 15 steps of 1 from -3 to 12
    x = torch.tensor([-3.0, 12.0, 0.0, 4.4])
    form = Integer(4, symmetric=False)
    assert torch.equal(through(form, x), torch.tensor([-3.0, 12.0, 0.0, 4.0]))
    assert form.encode(x)["zeros"].tolist() == [3]
    # one sign alone has all codes for itself
    assert form.encode(-x.abs())["zeros"].tolist() == [15]
    assert form.encode(x.abs())["zeros"].tolist() == [0]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=12), st.integers(2, 8), st.booleans())
def test_error_bound_and_repetition_for_all_inputs(values: list[float], bits: int, symmetric: bool) -> None:
    x = torch.tensor(values)
    form = Integer(bits, symmetric, scaling="tensor")
    kept = form.encode(x)
    back = form.decode(kept, (len(values),))
    low, high = x.clamp_max(0).min(), x.clamp_min(0).max()
    half = x.abs().max() / (2 * (2 ** (bits - 1) - 1)) if symmetric else (high - low) / (2 * (2**bits - 2))
    assert bool(((back - x).abs() <= half * (1 + 2**-14) * (1 + 1e-6) + 2.0**-100).all())
    again = form.encode(back)
    assert all(torch.equal(kept[name], again[name]) for name in ("codes", "scales"))


@pytest.mark.parametrize("symmetric", [True, False])
def test_products_are_exact_and_no_element_is_cut_off(symmetric: bool) -> None:
    x = torch.randn(5000, 16, generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 5000)[:, None]
    form = Integer(5, symmetric)
    kept = form.encode(x)
    back = form.decode(kept, (5000, 16))
    again = form.encode(back)
    assert torch.equal(kept["scales"], again["scales"]) and torch.equal(form.decode(again, (5000, 16)), back)
    steps = back.double() / kept["scales"].double()[:, None]
    assert torch.equal(steps, steps.round())
    if symmetric:
        assert bool((back.abs().amax(1) >= x.abs().amax(1)).all())


def test_rows_do_not_share_a_scale_and_tensors_do() -> None:
    x = torch.tensor([[1.0, 0.5], [1000.0, 500.0]])
    error = {scaling: float((through(Integer(4, scaling=scaling), x) - x)[0].abs().max()) for scaling in ("row", "tensor")}  # type: ignore[arg-type]
    assert error["tensor"] == 1.0 and error["row"] < 0.08


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 19])
def test_codes_are_packed_without_a_gap(bits: int, count: int) -> None:
    codes = torch.randint(0, 2**bits, (count,), generator=torch.Generator().manual_seed(0))
    kept = pack(codes, bits)
    assert kept.shape == (packed_bytes(count, bits),) == (-(-count * bits // 8),)
    assert torch.equal(unpack(kept, bits, count), codes)


def test_bytes() -> None:
    assert layout_bytes(Integer(4, scaling="block", block=64).layout((3, 50)), 4) == 75 + 3 * 4
    assert layout_bytes(Integer(8, symmetric=False).layout((3, 50)), 4) == 150 + 3 * (4 + 1)


@pytest.mark.parametrize("symmetric", [True, False])
def test_what_is_not_finite_is_not_hidden(symmetric: bool) -> None:
    x = torch.tensor([[1.0, torch.nan], [2.0, 1.0], [torch.inf, 0.0], [-torch.inf, 0.0]])
    assert through(Integer(8, symmetric), x).isnan().all(1).tolist() == [True, False, True, True]


def test_wrong_fields_are_refused() -> None:
    for bits in (1, 9):
        with pytest.raises(ValueError, match=rf"bits must lie in \[2, 8\], found {bits}"):
            Integer(bits)
    with pytest.raises(ValueError, match="block must be >= 1, found 0"):
        Integer(block=0)
