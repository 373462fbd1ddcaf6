"""Final weights as a folder that transformers loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers' own bar out of the run's display."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def save_transformer(tokenizer: Any) -> Callable[[nn.Module, Path], None]:
    """Return a writer of a transformers model with its tokenizer beside it."""

    def save(module: nn.Module, folder: Path) -> None:
        with _no_progress_bar():
            module.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)

    return save
