"""Wrong input costs nothing: 30 wrong recipes and budgets, each refused with exit code 2, no device touched and no directory left.

python bench/wrong_input.py
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

GOOD: dict[str, Any] = {
    "name": "digits",
    "budget": "20 steps",
    "model": {"mlp": {"inputs": 64, "classes": 10}},
    "stages": [{"source": {"images": {"name": "digits"}}, "objective": "classification", "knobs": {"lr": 0.01}}],
}

Change = Callable[[dict[str, Any]], Any]


def put(path: str, value: Any) -> Change:
    """Return a change that sets the value at a dotted path; numbers index lists."""

    def change(recipe: dict[str, Any]) -> None:
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        place: Any = recipe
        for step in steps:
            place = place[step]
        place[last] = value

    return change


def drop(key: str) -> Change:
    """Return a change that removes a top-level key."""
    return lambda recipe: recipe.pop(key)


def text_of(path: str) -> Change:
    """Return a change that trains a language model on a text file."""

    def change(recipe: dict[str, Any]) -> None:
        recipe["model"] = {"transformer": {"hidden": 32, "layers": 1}}
        recipe["stages"] = [{"source": {"text": {"path": path}}}]

    return change


#: what is wrong -> the change to a good recipe, and a part of the message it must get
WRONG: dict[str, tuple[Change, str]] = {
    "budget without a unit": (put("budget", "100M"), "cannot read '100M'"),
    "capital M for minutes": (put("budget", "30M"), "accepted are times"),
    "unknown unit": (put("budget", "5 epochs"), "cannot read '5 epochs'"),
    "negative budget": (put("budget", "-3s"), "cannot read '-3s'"),
    "empty budget": (put("budget", "0s"), "> 0"),
    "budget twice in seconds": (put("budget", "10m, 5m"), "limits seconds twice"),
    "money without a price": (put("budget", "$5"), "needs a price"),
    "only a ceiling": (put("budget", "24GiB"), "would never end"),
    "a unit that nothing spends": (put("budget", "20k rollouts"), "no stage spends any"),
    "tokens of images": (put("budget", "5k tokens"), "no stage spends any"),
    "budget missing": (drop("budget"), "the field 'budget' is missing"),
    "no stages": (put("stages", []), "at least one stage"),
    "unknown key": (put("sead", 3), "did you mean 'seed'"),
    "unknown key deep down": (put("model.mlp.inptus", 64), "did you mean 'inputs'"),
    "wrong type": (put("seed", "three"), "expected a whole number"),
    "true for a number": (put("seed", True), "expected a whole number"),
    "unknown method": (put("stages.0.optimizer", "adamx"), "did you mean 'optim/adamw'"),
    "method of another family": (put("model", {"rex": {}}), "there is no method 'rex'"),
    "two methods in one place": (put("model", {"mlp": {}, "cnn": {}}), "is written name or {name: {fields}}"),
    "range of a hyper-parameter": (
        put("stages.0.knobs.lr", {"peak": 0.1, "schedule": {"rex": {"beta": -1}}}),
        "beta must be finite and > 0",
    ),
    "unknown schedule": (put("stages.0.knobs.lr", {"peak": 0.1, "schedule": "cosin"}), "did you mean 'schedules/cosine'"),
    "unknown knob": (put("stages.0.knobs.learning_rate", 0.1), "no part of this stage reads the knob"),
    "share of nothing": (put("stages.0.share", 0), "must be a finite number > 0"),
    "stages of one name": (lambda r: r["stages"].append(r["stages"][0]), "is used 2 times"),
    "choice out of the list": (put("precision", "fp8"), "accepted: auto, fp32, bf16, fp16"),
    "name that leaves the directory": (put("name", "../x"), "names a directory"),
    "evaluation every never": (put("evaluate", {"every": 0}), "every must lie in (0, 1]"),
    "model that is too large": (put("budget", "20 steps, 100 params"), "the budget's ceiling is 100"),
    "memory that is too small": (put("budget", "20 steps, 10KB"), "even one example"),
    "file that is not there": (text_of("no/such/file.txt"), "no/such/file.txt"),
}


def refuse(recipe: dict[str, Any], folder: Path) -> tuple[int, str, bool]:
    """Run the command line on a recipe; return exit status, message and whether a device was taken."""
    import outlay.train.assembly as assembly
    from outlay import cli

    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    touched = mock.Mock(side_effect=assembly.Accelerator)
    errors = io.StringIO()
    arguments = ["outlay", "run", str(folder / "recipe.yaml")]
    with mock.patch.object(assembly, "Accelerator", touched), mock.patch.object(sys, "argv", arguments), contextlib.redirect_stderr(errors):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, errors.getvalue().strip(), touched.called


def main() -> int:
    """Try all; the exit status is 1 when one was not refused as it must be."""
    import copy

    failed = 0
    for number, (what, (change, message)) in enumerate(WRONG.items(), 1):
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            recipe = copy.deepcopy(GOOD)
            change(recipe)
            code, said, touched = refuse(recipe, Path(scratch))
            left = sorted(str(path.relative_to(scratch)) for path in Path(scratch).rglob("*") if path.name != "recipe.yaml")
            good = code == 2 and message in said and not touched and not left
            failed += not good
            print(f"{number:>2} {'ok ' if good else 'BAD'} exit {code}  {what}\n      {said.replace(scratch, '.')[:300]}")
            if not good:
                print(f"      expected {message!r}; device touched: {touched}; left behind: {left}")
            os.chdir("/")
    print(f"{len(WRONG) - failed} of {len(WRONG)} refused with exit code 2, no device touched, nothing left behind")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
