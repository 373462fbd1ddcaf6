"""The page in a real browser: the script runs under its security policy and draws every chart. Skipped where there is no browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import Made

from outlay.reporting import report

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")]
OFF = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
       "--disable-component-update", "--disable-sync", "--virtual-time-budget=3000")  # fmt: skip


def drawn(page: Path, tmp_path: Path, width: int) -> str:
    assert BROWSER is not None
    command = [BROWSER, *OFF, f"--user-data-dir={tmp_path / 'browser'}", f"--window-size={width},2000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("width", [1200, 500])
def test_every_chart_is_drawn(make: Callable[..., Made], tmp_path: Path, width: int) -> None:
    page = report([make("a", steps=300, killed_at=(100,)).path, make("b", steps=200, seed=1, name="other").path], tmp_path / "page.html")
    dom = drawn(page, tmp_path, width)
    figures = re.findall(r"<figure.*?</figure>", dom, re.DOTALL)
    assert len(figures) == 7
    for figure in figures:
        paths = re.findall(r'<path class="line[^"]*" stroke="var\(--c(\d)\)" d="([^"]+)"', figure)
        assert {run for run, _ in paths} == {"0", "1"}
        assert "NaN" not in figure and "undefined" not in figure and "Infinity" not in figure
        for _, path in paths:
            xs = [float(pair.split()[0]) for pair in re.split("[ML]", path)[1:]]
            assert xs == sorted(xs) and xs[0] >= 0 and xs[-1] <= width
