"""The table of formats, and what devices compute in."""

from __future__ import annotations

import math

import pytest
import torch

from outlay.catalog import make, methods_of
from outlay.formats import NAMED, Bf16, Dynamic8, computes_in, fp8_matmul_available, table
from outlay.formats.devices import computes_at
from outlay.testing import check_format


def test_rows_by_hand() -> None:
    rows = {row.name: row for row in table((256, 512))}
    assert list(rows) == list(NAMED)
    assert rows["bf16"].bits == 16 and rows["bf16"].step == 2**-7
    assert (rows["e4m3"].bits, rows["e4m3"].largest, rows["e4m3"].smallest, rows["e4m3"].step) == (8, 448, 2**-9, 2**-3)
    assert (rows["fp16"].largest, rows["fp16"].smallest) == (65504, 2**-24)
    assert rows["mxfp4"].bits == 4.25 and rows["mxfp4"].step == pytest.approx(0.5)
    assert rows["mxfp4"].smallest == pytest.approx(0.5 / 6)
    assert rows["int8, a scale a row"].bits == 8 + 32 / 512
    assert rows["uint8, a scale a row"].bits == 8 + 40 / 512
    assert rows["int8, a scale a row"].step == pytest.approx(1 / 63)
    assert rows["int2, blocks of 128"].step == math.inf
    assert rows["dynamic8"].bits == 8 + 32 / 256


def test_bfloat16_keeps_the_contract() -> None:
    check_format(Bf16())


@pytest.mark.parametrize("name", sorted(methods_of("formats")))
def test_every_format_is_made_by_name(name: str) -> None:
    form = make(f"formats/{name}")
    assert type(form) is methods_of("formats")[name]
    assert make("optim/galore", states=name).states == form


def test_fields_from_plain_values() -> None:
    assert make("optim/galore", states={"dynamic8": {"signed": False}}).states == Dynamic8(signed=False)


@pytest.mark.parametrize(
    ("capability", "formats"),
    [
        ((6, 1), set()),
        ((7, 0), {"fp16"}),
        ((8, 0), {"fp16", "int8", "bf16"}),
        ((8, 6), {"fp16", "int8", "bf16"}),
        ((8, 9), {"fp16", "int8", "bf16", "e4m3", "e5m2"}),
        ((9, 0), {"fp16", "int8", "bf16", "e4m3", "e5m2"}),
    ],
)
def test_what_cuda_devices_compute_in(capability: tuple[int, int], formats: set[str]) -> None:
    assert computes_at(capability) == formats


def test_a_cpu_claims_nothing() -> None:
    assert computes_in("cpu") == frozenset()
    assert not fp8_matmul_available(torch.device("cpu"))
    assert computes_in("meta") == frozenset()
