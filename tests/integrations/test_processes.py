"""Two processes under torchrun spend one budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_two_processes_spend_one_budget(tmp_path: Path) -> None:
    script = Path(__file__).parent / "two_processes.py"
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[2] / 'src'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script), str(tmp_path)]
    subprocess.run([*command, "10 steps", "500 tokens", "3s"], env=environment, check=True, capture_output=True, timeout=300)
    found = json.loads((tmp_path / "found.json").read_text())
    # 2 x 4 rows a step, 8 rows in each of the evaluations after steps 5 and 10
    assert found["10 steps"][:2] == ["steps", 10] and found["10 steps"][2]["examples"] == 10 * 8 + 2 * 8
    assert found["500 tokens"][0] == "tokens" and 500 - 2 * 8 * 8 < found["500 tokens"][2]["tokens"] <= 500
    assert found["3s"][0] == "seconds"
