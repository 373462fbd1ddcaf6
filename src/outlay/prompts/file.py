"""File: questions out of a local file, over and over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.prompts.base import Question
from outlay.rng import numpy_generator


@dataclass(frozen=True)
class FilePrompts:
    """The lines of a .jsonl file: an object each, with the prompt, and whatever the judge needs.

    A fresh random order every epoch. Prompts whose own hash says so are held out and never asked.

    Args:
        path: the file.
        prompt: the key of the prompt.
        reference: the key of a right answer; lines without it have none.
        kind: the key of a category for statistics; empty for none.
        held_out: share of prompts held out, in [0, 1).
        chat: put the prompt into the tokenizer's chat template as the user's message.
    """

    title: ClassVar[str] = "Prompts of a file"
    paper: ClassVar[Paper | None] = None

    path: Path
    prompt: str = "prompt"
    reference: str = "reference"
    kind: str = ""
    held_out: float = 0.0
    chat: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must lie in [0, 1), found {self.held_out}")

    def open(self, context: Context) -> Cycled:
        """Return the questions in the order of the streams (seed, "prompts/file", epoch).

        Raises:
            InputError: naming the file and line that cannot be used.
        """
        # sources bring torch, which judges in processes of their own do without
        from outlay.sources.prompts import as_prompts, tokenizer_of
        from outlay.sources.rows import is_held_out

        rows = [row for row in self._rows() if not is_held_out(row[self.prompt], self.held_out)]
        if not rows:
            raise InputError(f"{self.path} holds no prompt to train on")
        texts = as_prompts([row[self.prompt] for row in rows], tokenizer_of(context, "prompts/file"), self.chat)
        asked = [
            Question(text, str(row.get(self.reference, "")), 0, str(row.get(self.kind, "")) if self.kind else "", row)
            for text, row in zip(texts, rows, strict=True)
        ]
        return Cycled(asked, context.seed, "prompts/file")

    def _rows(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            raise InputError(f"there is no file {self.path}; relative paths start in {Path.cwd()}")
        rows = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{self.path}, line {number} is not JSON ({error.msg} at column {error.colno})") from error
            if not isinstance(row, dict) or not isinstance(row.get(self.prompt), str) or not row[self.prompt]:
                raise InputError(f"{self.path}, line {number} has no text under {self.prompt!r}; every line is an object with one")
            rows.append(row)
        return rows


class Cycled:
    """A list of questions asked over and over, each epoch in the order of the stream (seed, name, epoch)."""

    def __init__(self, asked: list[Question], seed: int, name: str) -> None:
        self._asked, self._seed, self._name, self._place = asked, seed, name, 0
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def draw(self, count: int) -> list[Question]:
        """Return the next ``count`` questions."""
        return [self._question(place) for place in range(self._place, self._place + count)]

    def advance(self, count: int) -> None:
        """Move the cursor past ``count`` questions."""
        self._place += count

    def state_dict(self) -> dict[str, Any]:
        """Return the cursor."""
        return {"place": self._place, "questions": len(self._asked)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved cursor.

        Raises:
            InputError: when the file holds another number of questions than it did.
        """
        if state["questions"] != len(self._asked):
            raise InputError(f"there are {len(self._asked)} questions, but {state['questions']} when the run was saved; restore the file")
        self._place = int(state["place"])

    def _question(self, place: int) -> Question:
        epoch, at = divmod(place, len(self._asked))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, numpy_generator(self._seed, self._name, epoch).permutation(len(self._asked))
        asked = self._asked[int(self._order[at])]
        return Question(asked.text, asked.reference, place, asked.kind, asked.extra)
