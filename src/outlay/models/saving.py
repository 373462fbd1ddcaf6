"""Final weights as a folder that transformers loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from outlay.models.quiet import no_progress_bar


def save_transformer(tokenizer: Any) -> Callable[[nn.Module, Path], None]:
    """Return a writer of a transformers model with its tokenizer beside it."""

    def save(module: nn.Module, folder: Path) -> None:
        with no_progress_bar():
            module.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)

    return save
