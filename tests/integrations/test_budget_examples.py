"""The examples end real trainers on their budgets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("script", ["hf_trainer_budget", "lightning_budget", "torch_loop_budget"])
def test_an_example_ends_on_its_budget(tmp_path: Path, script: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "examples" / f"{script}.py"), "4"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    spent = re.search(r"(\S+) s of 4 s spent, ended by seconds, (\d+) steps", done.stdout)
    rates = re.search(r"peak: (\S+) in the last step, 0 after", done.stdout)
    losses = re.search(r"held-out loss (\S+) -> (\S+)", done.stdout)
    assert spent and rates and losses, done.stdout + done.stderr
    # never over by more than a step or two, as long as they were on this machine; the seconds are printed with two digits
    assert float(spent[1]) <= 4 * (1 + 2 / int(spent[2])) + 0.01
    assert float(rates[1]) < 20 / int(spent[2]) and float(losses[2]) < float(losses[1])
