"""Table: prompt and answer pairs out of a file, a hub dataset or memory, for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.sources.base import Shuffled, Stream
from outlay.sources.pairs import Pairs
from outlay.sources.prompts import as_prompts, tokenizer_of
from outlay.sources.rows import COLUMNS, file_rows, hub_rows, is_held_out, memory_rows


@dataclass(frozen=True)
class Table:
    """Pairs of a prompt and the answer to learn; only the answer and the end mark after it are labelled.

    Exactly one of ``path``, ``dataset`` and ``rows`` says where the pairs come from. A pair is held out by a hash of its prompt: equal
    prompts are always on the same side, and runs with different seeds measure on the same ones.

    Args:
        path: a local .jsonl, .csv or .parquet file.
        dataset: name of a dataset on the Hugging Face hub.
        rows: rows in memory, each a mapping of column to text; for use from Python.
        subset: the hub dataset's configuration, where it has several.
        split: the hub dataset's split.
        prompt: name of the column with prompts.
        answer: name of the column with answers.
        chat: put the prompt into the tokenizer's chat template as the user's message; otherwise prompt and answer are joined as they are.
        held_out_share: expected share of prompts held out, in [0, 1).
        longest: longest pair in tokens, end mark included, > 0; a longer one is refused.
    """

    title: ClassVar[str] = "Table of prompts and answers"
    paper: ClassVar[Paper | None] = None
    units: ClassVar[tuple[str, ...]] = ("examples", "tokens")

    path: Path | None = None
    dataset: str | None = None
    rows: tuple[dict[str, str], ...] | None = None
    subset: str | None = None
    split: str = "train"
    prompt: str = "prompt"
    answer: str = "answer"
    chat: bool = False
    held_out_share: float = 0.05
    longest: int = 512

    def __post_init__(self) -> None:
        if isinstance(self.rows, list):
            object.__setattr__(self, "rows", tuple(self.rows))
        if isinstance(self.path, str):
            object.__setattr__(self, "path", Path(self.path))
        origins = [name for name in ("path", "dataset", "rows") if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(f"exactly one of path, dataset and rows says what is read, found {', '.join(origins) or 'none'}")
        if self.path is not None and self.path.suffix not in COLUMNS:
            raise ValueError(f"path must end in {', '.join(COLUMNS)}, found {str(self.path)!r}")
        if self.prompt == self.answer:
            raise ValueError(f"prompt and answer must be different columns, found {self.prompt!r} for both")
        if not 0 <= self.held_out_share < 1:
            raise ValueError(f"held_out_share must lie in [0, 1), found {self.held_out_share}")
        if self.longest <= 0:
            raise ValueError(f"longest must be > 0 tokens, found {self.longest}")

    def open(self, context: Context) -> Stream:
        """Return the training pairs in a shuffled order.

        Raises:
            InputError: when the rows cannot be read, a pair is too long, or the model reads no text.
        """
        return Shuffled(self._pairs(context, held_out=False), context)

    def held_out(self, context: Context) -> Pairs:
        """Return the pairs whose prompts are held out.

        Raises:
            InputError: when there are none.
        """
        kept = self._pairs(context, held_out=True)
        if not len(kept):
            raise InputError(f"no row of the table is held out; raise held_out_share (now {self.held_out_share}) or give more rows")
        return kept

    def _pairs(self, context: Context, held_out: bool) -> Pairs:
        tokenizer = tokenizer_of(context, "sources/table")
        side = [row for row in self._rows() if is_held_out(row[0], self.held_out_share) == held_out]
        prompts = as_prompts([prompt for prompt, _ in side], tokenizer, self.chat)
        return Pairs([(prompt, answer) for prompt, (_, answer) in zip(prompts, side, strict=True)], tokenizer, self.longest)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        columns = [self.prompt, self.answer]
        if self.path is not None:
            return file_rows(self.path, columns)
        if self.dataset is not None:
            return hub_rows(self.dataset, self.subset, self.split, columns, streaming=False)
        return memory_rows(self.rows or (), columns)
