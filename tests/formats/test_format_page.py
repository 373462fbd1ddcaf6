"""The page on low precision says what the program prints."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from outlay.formats import NAMED, Integer
from outlay.formats.devices import CUDA

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "low-precision.md").read_text(encoding="utf-8")


def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_formats", ROOT / "bench" / "formats.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_bits_is_the_printed_one() -> None:
    assert "\n".join(program().held()) in PAGE


def test_the_table_of_errors_is_the_printed_one_where_nothing_is_trained() -> None:
    bench = program()
    normal = torch.randn(1024, 1024, generator=bench.torch_generator(0, "bench/formats/normal"))
    rows = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.count("|") == 8}
    assert set(NAMED) <= set(rows)
    for name in ("bf16", "e4m3, a scale a row", "int8, a scale a row", "int4, blocks of 128", "mxfp4", "dynamic8"):
        assert rows[name].split("|")[3].strip() == bench.percent(bench.lost(NAMED[name], [normal]))


def test_errors_and_lost_numbers_by_hand() -> None:
    bench = program()
    x = torch.tensor([[7.0, 1.4, 0.4, 0.0]])
    assert abs(bench.lost(Integer(4), [x]) - ((0.4**2 + 0.4**2) / (49 + 1.96 + 0.16)) ** 0.5) < 1e-4
    assert bench.zeroed(Integer(4), [x]) == torch.tensor(1 / 3).item()


def test_python_on_the_page_runs() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    said, space = io.StringIO(), dict[str, Any]()
    with contextlib.redirect_stdout(said):
        exec(compile(block, "low-precision.md", "exec"), space)
    (line,) = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    assert said.getvalue().splitlines() == [line]


def test_every_capability_has_its_row() -> None:
    for major, minor in CUDA:
        assert re.search(rf"\| (CUDA, capability )?from {major}\.{minor} \|", PAGE)
