"""Passes: what the local engine asks of a model, so that a faster way to compute it can stand in for the readable one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Prefix:
    """A prompt that was read, once for everybody who goes on from it.

    Args:
        length: its tokens.
        logits: (vocabulary,) after its last token.
        keys: of every layer, (heads, length, head width); or of all layers and of the prompts read together one behind the other, in one tensor
            (layers, heads, positions, head width).
        values: likewise.
        begin: first of its positions there.
    """

    length: int
    logits: torch.Tensor
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    begin: int = 0


class Passes(Protocol):
    """A model that reads prompts, and then one token a row for rows that sit in the places 0, 1, ..., n - 1.

    ``mixed`` says whether prompts of different lengths can be read together without computing positions that hold nothing.
    """

    mixed: bool

    def read(self, prompts: Sequence[Sequence[int]]) -> list[Prefix]:
        """Read prompts side by side."""
        ...

    def seat(self, first: int, prefixes: Sequence[Prefix]) -> None:
        """Let rows that have read these prefixes sit in the places from ``first`` on."""
        ...

    def close_up(self, to: Sequence[int], source: Sequence[int], left: int) -> None:
        """Let the rows in the places ``source`` sit in the places ``to``, none of which is among ``source``; the first ``left`` places remain."""
        ...

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one token (n,) each in the places 0 to n - 1 and return the logits after it, (n, vocabulary)."""
        ...
