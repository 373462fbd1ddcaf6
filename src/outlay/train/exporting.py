"""Exporting: a model's weights as a folder that its library loads, written aside and renamed."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

from outlay.train.assembly import Assembly
from outlay.train.companions import bare


def aside(folder: Path) -> Path:
    """Return where a folder is written before it is renamed."""
    return folder.parent / f".incomplete-{folder.name}"


def export(assembly: Assembly, folder: Path, last: bool) -> None:
    """Write the model as it is, an adapter merged into it. What stood there, only there if a kill came in between, is replaced.

    Args:
        assembly: holds the model.
        folder: where it goes.
        last: whether the model will not be trained on; else an adapter is merged into a copy.

    Raises:
        OSError: when the disk is full or fails.
    """
    module, adapter = assembly.plain_module, assembly.recipe.adapter
    if adapter is not None:
        module = adapter.merge(module if last else copy.deepcopy(module))
    unfinished = aside(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(unfinished, ignore_errors=True)
    with bare(module):
        assembly.loaded.save(module, unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(unfinished, folder)
