"""The examples end real trainers on their budgets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(("script", "seconds"), [("hf_trainer_budget", 5), ("lightning_budget", 2), ("torch_loop_budget", 2)])
def test_an_example_ends_on_its_budget(tmp_path: Path, script: str, seconds: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "examples" / f"{script}.py"), str(seconds)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    # how exactly the seconds are kept is tested on a clock that the tests move
    spent = re.search(rf"(\S+) s of {seconds} s spent, ended by seconds, (\d+) steps", done.stdout)
    rates = re.search(r"peak: (\S+) in the last step, 0 after", done.stdout)
    losses = re.search(r"held-out loss (\S+) -> (\S+)", done.stdout)
    assert spent and rates and losses, done.stdout + done.stderr
    assert int(spent[2]) > 0 and float(losses[2]) < float(losses[1])
