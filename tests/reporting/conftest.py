"""Run directories for the tests of reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import Made, make_run


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """Make run directories below the test's own folder: ``make("a", steps=100)``."""

    def made(folder: str = "run", **wanted: Any) -> Made:
        return make_run(tmp_path / folder, **wanted)

    return made
