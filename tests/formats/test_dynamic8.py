"""Dynamic 8-bit blocks: the code book, bounds, and what keeps second moments above zero."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.formats import Dynamic8
from outlay.formats.dynamic8 import code_book, nearest
from outlay.testing import check_format


def through(form: Dynamic8, x: torch.Tensor, draw: torch.Generator | None = None) -> torch.Tensor:
    return form.decode(form.encode(x, draw), tuple(x.shape))


@pytest.mark.parametrize("signed", [True, False])
def test_contract(signed: bool) -> None:
    check_format(Dynamic8(signed), signed=signed)
    check_format(Dynamic8(signed, block=16), signed=signed)


def test_the_book_by_hand() -> None:
    book = code_book(True).double() * 0.99296875
    assert len(book) == 128 and len(code_book(False)) == 256
    # a number in the lowest decade, two in the next, four in the one above it
    expected = [0, 0.55e-6, 0.325e-5, 0.775e-5, 0.2125e-4, 0.4375e-4, 0.6625e-4, 0.8875e-4]
    assert torch.allclose(book[:8], torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)
    assert float(code_book(True)[-1]) == float(code_book(False)[-1]) == 1.0
    assert bool((book[1:] > book[:-1]).all())


@pytest.mark.parametrize(("signed", "absolute", "floor"), [(True, 0.0071, 1e-6), (False, 0.0036, 1e-7)])
def test_stated_bounds_hold_and_are_nearly_reached(signed: bool, absolute: float, floor: float) -> None:
    x = torch.cat([torch.logspace(-9, 0, 100_001), torch.linspace(0, 1, 100_001)])
    x = torch.cat([x, -x]) if signed else x
    form = Dynamic8(signed, block=len(x))
    error = (through(form, x) - x).abs()
    assert 0.97 * absolute < float(error.max()) <= absolute
    above = x.abs() >= floor
    relative = float((error[above] / x.abs()[above]).max())
    assert 0.7 < relative <= 0.72
    noisy = (through(form, x, torch.Generator().manual_seed(0)) - x).abs()
    assert absolute < float(noisy.max()) <= 2 * absolute


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32).filter(lambda x: x == 0 or abs(x) > 1e-20), min_size=1, max_size=20))
def test_what_was_decoded_is_encoded_as_it_was(values: list[float]) -> None:
    form = Dynamic8(block=8)
    kept = form.encode(torch.tensor(values))
    again = form.encode(form.decode(kept, (len(values),)))
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_blocks_do_not_share_a_scale() -> None:
    x = torch.cat([torch.full((256,), 1e-9), torch.full((256,), 1e9)])
    assert float((through(Dynamic8(), x) / x - 1).abs().max()) < 1e-6
    assert not through(Dynamic8(block=512), x)[:256].any()


def test_second_moments_can_be_kept_above_zero() -> None:
    x = torch.tensor([1.0, 1e-12, 0.0])
    assert through(Dynamic8(False), x).tolist()[1:] == [0.0, 0.0]
    kept = through(Dynamic8(False, positive=True), x)
    assert 0 < float(kept[1]) < 5.6e-8 and float(kept[2]) == 0.0
    assert through(Dynamic8(False), torch.tensor([1.0, -0.3])).tolist() == [1.0, 0.0]


def test_what_is_not_finite_is_not_hidden() -> None:
    x = torch.ones(6)
    x[0], x[3] = torch.inf, torch.nan
    for signed in (True, False):
        assert through(Dynamic8(signed, block=2), x).isnan().tolist() == [True, True, True, True, False, False]


@pytest.mark.parametrize("signed", [True, False])
def test_the_table_finds_what_a_search_finds(signed: bool) -> None:
    book = code_book(signed)
    borders = (book[1:] + book[:-1]) / 2
    draw = torch.Generator().manual_seed(0)
    there = [torch.rand(100_000, generator=draw), 10 ** (-9 * torch.rand(100_000, generator=draw)), book, borders]
    there += [torch.nextafter(borders, torch.tensor(end)) for end in (0.0, 1.0)]
    sizes = torch.cat(there)
    assert torch.equal(nearest(sizes, signed).long(), torch.bucketize(sizes, borders))
