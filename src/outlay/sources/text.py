"""Text: documents as one long row of tokens, cut into blocks, for language modelling."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, nearest
from outlay.sources.base import Batch, Shuffled, Stream
from outlay.sources.prompts import tokenizer_of
from outlay.sources.rows import COLUMNS, file_paragraphs, file_rows, hub_rows, is_held_out
from outlay.tasks.corpora import CORPORA, documents

#: characters handed to the tokenizer at once: enough for its threads, little beside the result
_CHUNK = 2**18


class Blocks:
    """A row of token ids cut into blocks of equal length; what does not fill the last block is left out.

    Args:
        ids: the tokens, shape (tokens,), any unsigned integer type.
        length: tokens a block, > 1.
    """

    def __init__(self, ids: np.ndarray, length: int) -> None:
        self._blocks = ids[: len(ids) // length * length].reshape(-1, length)

    def __len__(self) -> int:
        return len(self._blocks)

    def collate(self, indices: Sequence[int]) -> Batch:
        """Return ``input_ids``, ``attention_mask`` (all ones) and ``labels`` (the tokens themselves), each (examples, length)."""
        ids = torch.from_numpy(self._blocks[np.asarray(indices, dtype=np.int64)].astype(np.int64))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


@dataclass(frozen=True)
class Text:
    """Language modelling on documents: tokenised, joined with the end mark after each, cut into blocks; every position is labelled.

    Exactly one of ``corpus``, ``path``, ``dataset`` and ``texts`` says where the documents come from. A document is held out as a whole,
    by a hash of its text: no part of it is trained on, and runs with different seeds measure on the same ones.

    Args:
        corpus: name or names of corpora that come with outlay: ``code``, ``manual``, ``speeches``, ``scripture``, ``verse``,
            ``reference``, ``bilingual``.
        path: a local file: .jsonl, .csv or .parquet with a text column, or .txt, whose paragraphs (blank lines between) are the documents.
        dataset: name of a dataset on the Hugging Face hub.
        texts: documents in memory; for use from Python.
        subset: the hub dataset's configuration, where it has several.
        split: the hub dataset's split.
        column: name of the text column.
        held_out_share: expected share of documents held out, in [0, 1).
        length: tokens a block, > 1.
        limit_tokens: read no more training tokens than this, from the beginning, and held-out ones in proportion; None for all. A hub
            dataset is then streamed instead of downloaded whole.
    """

    title: ClassVar[str] = "Text in blocks"
    paper: ClassVar[Paper | None] = None
    units: ClassVar[tuple[str, ...]] = ("examples", "tokens")

    corpus: str | tuple[str, ...] | None = None
    path: Path | None = None
    dataset: str | None = None
    texts: tuple[str, ...] | None = None
    subset: str | None = None
    split: str = "train"
    column: str = "text"
    held_out_share: float = 0.05
    length: int = 128
    limit_tokens: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.corpus, list):
            object.__setattr__(self, "corpus", tuple(self.corpus))
        if isinstance(self.texts, list):
            object.__setattr__(self, "texts", tuple(self.texts))
        if isinstance(self.path, str):
            object.__setattr__(self, "path", Path(self.path))
        origins = [name for name in ("corpus", "path", "dataset", "texts") if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(f"exactly one of corpus, path, dataset and texts says what is read, found {', '.join(origins) or 'none'}")
        for name in self._corpora():
            if name not in CORPORA:
                raise ValueError(f"there is no corpus {name!r}{nearest(name, CORPORA)}")
        if self.path is not None and self.path.suffix not in (".txt", *COLUMNS):
            raise ValueError(f"path must end in {', '.join(('.txt', *COLUMNS))}, found {str(self.path)!r}")
        if not 0 <= self.held_out_share < 1:
            raise ValueError(f"held_out_share must lie in [0, 1), found {self.held_out_share}")
        if self.length <= 1:
            raise ValueError(f"length must be > 1 token, found {self.length}")
        if self.limit_tokens is not None and self.limit_tokens < self.length:
            raise ValueError(f"limit_tokens must be at least one block of {self.length}, found {self.limit_tokens}")

    def open(self, context: Context) -> Stream:
        """Return the training blocks in a shuffled order.

        Raises:
            InputError: when the documents cannot be read, make less than one block, or the model reads no text.
        """
        blocks = self._blocks(context, held_out=False, limit=self.limit_tokens)
        if not len(blocks):
            raise InputError(f"the training documents of {self._name()} do not fill one block of {self.length} tokens; lower length")
        return Shuffled(blocks, context)

    def held_out(self, context: Context) -> Blocks:
        """Return the blocks of the documents held out.

        Raises:
            InputError: when none are held out, or they make less than one block.
        """
        if self.held_out_share == 0:
            raise InputError(f"{self._name()} holds nothing out; set held_out_share > 0")
        limit = None
        if self.limit_tokens is not None:
            limit = max(self.length, int(self.limit_tokens * self.held_out_share / (1 - self.held_out_share)))
        blocks = self._blocks(context, held_out=True, limit=limit)
        if not len(blocks):
            rule = f"do not fill one block of {self.length} tokens; raise held_out_share (now {self.held_out_share}) or lower length"
            raise InputError(f"the held-out documents of {self._name()} {rule}")
        return blocks

    def _blocks(self, context: Context, held_out: bool, limit: int | None) -> Blocks:
        tokenizer = tokenizer_of(context, "sources/text")
        if self._corpora() and limit is not None:
            return Blocks(_ids_of_corpus(self, _Spelling(tokenizer), held_out, limit), self.length)
        return Blocks(tokenise(self._side(held_out), tokenizer, limit), self.length)

    def _side(self, held_out: bool) -> Iterator[str]:
        return (text for text in self._documents() if is_held_out(text, self.held_out_share) == held_out)

    def _documents(self) -> Iterator[str]:
        for name in self._corpora():
            yield from (document.text for document in documents(name))
        if self.path is not None and self.path.suffix == ".txt":
            yield from file_paragraphs(self.path)
        elif self.path is not None:
            yield from (text for (text,) in file_rows(self.path, [self.column]))
        if self.dataset is not None:
            streaming = self.limit_tokens is not None
            yield from (text for (text,) in hub_rows(self.dataset, self.subset, self.split, [self.column], streaming))
        yield from self.texts or ()

    def _corpora(self) -> tuple[str, ...]:
        return (self.corpus,) if isinstance(self.corpus, str) else self.corpus or ()

    def _name(self) -> str:
        return " and ".join(self._corpora()) or str(self.path or self.dataset or "the texts in memory")


def tokenise(texts: Iterable[str], tokenizer: Any, limit: int | None = None) -> np.ndarray:
    """Return the texts' tokens in one row, each text followed by the end mark, at most ``limit`` of them.

    Args:
        texts: the documents; no more of them are drawn than needed.
        tokenizer: transformers' tokenizer.
        limit: most tokens, or None.

    Returns:
        Shape (tokens,), uint16 where the vocabulary allows and else uint32.
    """
    kind = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    rows: list[np.ndarray] = []
    total = 0
    for chunk in _chunks(texts):
        encoded = tokenizer(chunk, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        row = np.fromiter(chain.from_iterable((*ids, tokenizer.eos_token_id) for ids in encoded), dtype=kind)
        rows.append(row)
        total += len(row)
        if limit is not None and total >= limit:
            break
    return np.concatenate([*rows, np.empty(0, kind)])[:limit]


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class _Spelling:
    """A tokenizer that equals another one of the same making, so that what it has read can be found again."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        made = tokenizer.backend_tokenizer.to_str() if hasattr(tokenizer, "backend_tokenizer") else str(id(tokenizer))
        self._key = hashlib.blake2b(made.encode()).digest()

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Spelling) and other._key == self._key


@lru_cache(maxsize=8)
def _ids_of_corpus(source: Text, spelling: _Spelling, held_out: bool, limit: int) -> np.ndarray:
    """Return a bundled corpus as tokens; kept in memory, since runs that are compared read the same ones again and again."""
    return tokenise(source._side(held_out), spelling.tokenizer, limit)
