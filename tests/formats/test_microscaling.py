"""Microscaling: powers of two, cutting, blocks along the last axis, bytes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.formats import Microscaling
from outlay.formats.microscaling import GRIDS, Element
from outlay.layout import layout_bytes
from outlay.testing import check_format

ELEMENTS: tuple[Element, ...] = ("e4m3", "e5m2", "e3m2", "e2m3", "e2m1", "int8")


def through(form: Microscaling, x: torch.Tensor) -> torch.Tensor:
    return form.decode(form.encode(x), tuple(x.shape))


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("element", ["e4m3", "e2m1", "e3m2", "int8"])
def test_contract(element: Element, cut: bool) -> None:
    check_format(Microscaling(element, cut), cuts=cut)


def test_by_hand() -> None:
    # the largest, 7, lies in [4, 8): X = 2^(2 - 2) = 1, and it is cut to 6; X = 2 would fit
    x = torch.tensor([7.0, -0.6, 0.2, 2.6])
    kept = Microscaling("e2m1").encode(x)
    assert kept["exponents"].tolist() == [127]
    # codes 7, 1 with the sign bit, 0, 5
    assert kept["codes"].tolist() == [7 | (9 << 4), 0 | (5 << 4)]
    assert torch.equal(through(Microscaling("e2m1"), x), torch.tensor([6.0, -0.5, 0.0, 3.0]))
    assert Microscaling("e2m1", cut=False).encode(x)["exponents"].tolist() == [128]
    assert torch.equal(through(Microscaling("e2m1", cut=False), x), torch.tensor([8.0, -1.0, 0.0, 3.0]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), st.sampled_from(ELEMENTS), st.booleans())
def test_error_bound_and_repetition_for_all_inputs(values: list[float], element: Element, cut: bool) -> None:
    x, form = torch.tensor(values), Microscaling(element, cut)
    kept = form.encode(x)
    back = form.decode(kept, (len(values),))
    scale = (2.0 ** (kept["exponents"].double() - 127)).repeat_interleave(32)[: len(values)]
    size = x.abs().double()
    if element == "int8":
        near = scale / 128
    else:
        grid = GRIDS[element]
        near = torch.maximum(size * 2.0 ** -(grid.significand + 1), scale * grid.value(1) / 2)
    lost = {"e2m1": 1 / 4, "e4m3": 1 / 8, "e5m2": 1 / 8, "e3m2": 1 / 8, "e2m3": 1 / 16, "int8": 1 / 128}[element]
    beyond = size > scale * form.largest
    assert cut or not beyond.any()
    error = (back.double() - x.double()).abs()
    assert bool((error <= torch.where(beyond, size * lost, near)).all())
    assert torch.equal(form.decode(form.encode(back), (len(values),)), back)


def test_blocks_lie_along_the_last_axis() -> None:
    x = torch.ones(2, 40)
    x[0, 32:] *= 1e4
    x[1] *= 1e-4
    exponents = Microscaling().encode(x)["exponents"]
    assert exponents.shape == (4,)
    assert len(set(exponents.tolist())) == 3
    # what one block holds does not touch the next
    assert float((through(Microscaling("e2m1"), x) / x - 1).abs().max()) < 0.26


def test_bytes() -> None:
    for element, bits in (("e4m3", 8), ("e5m2", 8), ("e3m2", 6), ("e2m3", 6), ("e2m1", 4), ("int8", 8)):
        assert layout_bytes(Microscaling(element).layout((5, 64)), 4) * 8 == 5 * 64 * bits + 5 * 2 * 8  # type: ignore[arg-type]


def test_what_is_not_finite_is_not_hidden() -> None:
    x = torch.ones(1, 96)
    x[0, 3], x[0, 40] = torch.nan, -torch.inf
    assert through(Microscaling("e2m1"), x).isnan()[0].tolist() == [True] * 64 + [False] * 32


def test_extremes_of_the_shared_exponent() -> None:
    for size in (1e-38, 1.7e38):
        back = through(Microscaling("e4m3"), torch.tensor([size]))
        assert bool(back.isfinite()) and abs(float(back) - size) <= 0.13 * size
    # below what 2^-126 times the least number reaches
    assert float(through(Microscaling("e4m3"), torch.tensor([1e-44]))) == 0.0


def test_wrong_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="element must be one of e4m3, e5m2, e3m2, e2m3, e2m1, int8, found e8m0"):
        Microscaling("e8m0")  # type: ignore[arg-type]
