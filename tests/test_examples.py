"""The examples run as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_own_module_learns(tmp_path: Path) -> None:
    script = ROOT / "examples" / "own_module.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(script), "200 steps"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    before, after = map(float, re.search(r"held-out loss (\S+) -> (\S+)", done.stdout).groups())  # type: ignore[union-attr]
    assert after < before / 2
    assert (tmp_path / "runs" / "autoencoder-1" / "model" / "model.safetensors").is_file()
