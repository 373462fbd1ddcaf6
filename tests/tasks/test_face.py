"""The face of the family: every name resolves, and importing it loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import outlay.tasks as face


def test_every_name_resolves_to_its_module() -> None:
    for name in face.__all__:
        value = getattr(face, name)
        assert getattr(value, "__module__", "outlay.tasks.").startswith("outlay.tasks.") or name in ("CORPORA", "TASKS", "IMAGES")
    assert dir(face) == sorted(face.__all__) and set(face._MODULE_OF) == set(face.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = face.nothing


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = ["numpy", "torch", "reasoning_gym", "transformers", "sklearn"]
    asked = f"import sys, outlay.tasks; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
