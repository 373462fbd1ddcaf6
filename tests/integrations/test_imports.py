"""A trainer is needed only where it is asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from outlay.errors import MissingExtra


@pytest.mark.parametrize(
    ("module", "package", "extra"), [("transformers", "transformers", "hf"), ("lightning", "lightning.pytorch", "lightning")]
)
def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, module: str, package: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"outlay.integrations.{module}", raising=False)
    with pytest.raises(MissingExtra, match=rf"needs the package '{module}'.*outlay\[{extra}\]"):
        importlib.import_module(f"outlay.integrations.{module}")


def test_outlay_and_its_integrations_import_no_trainer() -> None:
    code = "import sys, outlay, outlay.integrations; print(sorted({'torch', 'transformers', 'lightning'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
