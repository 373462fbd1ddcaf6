"""Preferences: questions with answers of which it is known how good they are, out of a file, a hub dataset or memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, nearest
from outlay.sources.base import Batch, Shuffled, Stream
from outlay.sources.pairs import Pairs
from outlay.sources.prompts import as_prompts, tokenizer_of
from outlay.sources.rows import COLUMNS, file_records, hub_records, is_held_out, texts_of


@dataclass(frozen=True)
class Preferences:
    """Groups of answers to the same prompt: a chosen and a rejected one, or any number of them with their rewards.

    Exactly one of ``path``, ``dataset`` and ``rows`` says where they come from. A stage's ``batch_size`` counts answers and must be a multiple of a
    group's size (2 for pairs), with a group for each process. Rows carry ``group``, ``reward`` and ``judged``; the chosen answer is worth 1 and the
    rejected 0, and an answer whose reward is null was not judged. Only the answer and the end mark after it are labelled. A group is held out by a
    hash of its prompt, as everywhere.

    Args:
        path: a local .jsonl, .csv or .parquet file (.csv for pairs alone).
        dataset: name of a dataset on the Hugging Face hub.
        rows: rows in memory, each a mapping of column to value; for use from Python.
        subset: the hub dataset's configuration, where it has several.
        split: the hub dataset's split.
        prompt: name of the column with prompts.
        chosen: name of the column with the better answers.
        rejected: name of the column with the worse answers.
        answers: name of a column with lists of answers, which then stand in for chosen and rejected; all lists of one length, at least 2.
        rewards: name of the column with lists of their rewards, numbers or null.
        chat: put the prompt into the tokenizer's chat template as the user's message; otherwise prompt and answer are joined as they are.
        held_out_share: expected share of prompts held out, in [0, 1).
        longest: longest prompt and answer in tokens, end mark included, > 0; a longer one is refused.
    """

    title: ClassVar[str] = "Preferences"
    paper: ClassVar[Paper | None] = None
    units: ClassVar[tuple[str, ...]] = ("examples", "tokens")

    path: Path | None = None
    dataset: str | None = None
    rows: tuple[dict[str, Any], ...] | None = None
    subset: str | None = None
    split: str = "train"
    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    answers: str | None = None
    rewards: str = "rewards"
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
        accepted = COLUMNS if self.answers is None else tuple(ending for ending in COLUMNS if ending != ".csv")
        if self.path is not None and self.path.suffix not in accepted:
            raise ValueError(f"path must end in {', '.join(accepted)}, found {str(self.path)!r}")
        columns = [self.prompt, *([self.chosen, self.rejected] if self.answers is None else [self.answers, self.rewards])]
        if len(set(columns)) != len(columns):
            raise ValueError(f"prompt and answers must be different columns, found {', '.join(columns)}")
        if not 0 <= self.held_out_share < 1:
            raise ValueError(f"held_out_share must lie in [0, 1), found {self.held_out_share}")
        if self.longest <= 0:
            raise ValueError(f"longest must be > 0 tokens, found {self.longest}")

    def open(self, context: Context) -> Stream:
        """Return the training groups in a shuffled order.

        Raises:
            InputError: when the rows cannot be read, groups differ in size, a text is too long, or the model reads no text.
        """
        return _Whole(self._groups(context, held_out=False), context)

    def held_out(self, context: Context) -> Groups:
        """Return the groups whose prompts are held out; an index is a group's.

        Raises:
            InputError: when there are none.
        """
        kept = self._groups(context, held_out=True)
        if not len(kept):
            raise InputError(f"no group of answers is held out; raise held_out_share (now {self.held_out_share}) or give more rows")
        return kept

    def _groups(self, context: Context, held_out: bool) -> Groups:
        tokenizer = tokenizer_of(context, "sources/preferences")
        side = [group for group in self._read() if is_held_out(group.prompt, self.held_out_share) == held_out]
        prompts = as_prompts([group.prompt for group in side], tokenizer, self.chat)
        return Groups(side, prompts, tokenizer, self.longest)

    def _read(self) -> Iterator[_Group]:
        size = None
        for place, row in self._records():
            found = self._pair(row, place) if self.answers is None else self._list(row, place)
            if len(found.answers) != (size := size or len(found.answers)):
                raise InputError(f"{place}: {len(found.answers)} answers where rows before have {size}; give every prompt the same number")
            yield found

    def _records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if self.path is not None:
            return file_records(self.path)
        if self.dataset is not None:
            return hub_records(self.dataset, self.subset, self.split, streaming=False)
        return ((f"row {number}", row) for number, row in enumerate(self.rows or (), 1))

    def _pair(self, row: Mapping[str, Any], place: str) -> _Group:
        prompt, chosen, rejected = texts_of(row, [self.prompt, self.chosen, self.rejected], place)
        return _Group(prompt, (chosen, rejected), (1.0, 0.0))

    def _list(self, row: Mapping[str, Any], place: str) -> _Group:
        (prompt,) = texts_of(row, [self.prompt], place)
        answers, rewards = (_listed(row, str(column), place) for column in (self.answers, self.rewards))
        if len(answers) < 2 or len(answers) != len(rewards):
            raise InputError(f"{place}: {len(answers)} answers and {len(rewards)} rewards; give as many of each, at least 2")
        texts = texts_of({str(i): answer for i, answer in enumerate(answers)}, [str(i) for i in range(len(answers))], place)
        for reward in rewards:
            number = isinstance(reward, int | float) and math.isfinite(reward)
            if reward is not None and not number:
                raise InputError(
                    f"{place}: column {self.rewards!r} holds {reward!r}; accepted: a finite number, or null where nobody could judge"
                )
        return _Group(prompt, texts, tuple(None if reward is None else float(reward) for reward in rewards))


def _listed(row: Mapping[str, Any], column: str, place: str) -> Sequence[Any]:
    if column not in row:
        raise InputError(f"{place} has no column {column!r}{nearest(column, [str(known) for known in row])}")
    if not isinstance(row[column], list | tuple):
        raise InputError(f"{place}: column {column!r} holds {row[column]!r}; accepted: a list")
    found: Sequence[Any] = row[column]
    return found


@dataclass(frozen=True)
class _Group:
    prompt: str
    answers: tuple[str, ...]
    rewards: tuple[float | None, ...]


class Groups:
    """Groups of answers as token ids; an index is a group's, and gives all its rows.

    Args:
        groups: prompt, answers and rewards, all of one size.
        prompts: the prompts as the model is to see them.
        tokenizer: transformers' tokenizer with ``pad_token_id`` and ``eos_token_id``.
        longest: longest text in tokens; a longer one is refused.
    """

    def __init__(self, groups: Sequence[_Group], prompts: Sequence[str], tokenizer: Any, longest: int) -> None:
        self._rewards = [group.rewards for group in groups]
        #: answers of a group
        self.size = len(groups[0].answers) if groups else 1
        texts = [(prompt, answer) for prompt, group in zip(prompts, groups, strict=True) for answer in group.answers]
        self._texts = Pairs(texts, tokenizer, longest)

    def __len__(self) -> int:
        """Return how many groups there are."""
        return len(self._rewards)

    def collate(self, indices: Sequence[int]) -> Batch:
        """Return all rows of the groups at ``indices``, in order, with the columns of ``Pairs`` and ``group``, ``reward`` and ``judged``; groups are
        numbered within the batch, so that one that comes twice is two."""
        batch = self._texts.collate([index * self.size + i for index in indices for i in range(self.size)])
        rewards = [reward for index in indices for reward in self._rewards[index]]
        return batch | {
            "group": torch.arange(len(indices)).repeat_interleave(self.size),
            "reward": torch.tensor([0.0 if reward is None else reward for reward in rewards]),
            "judged": torch.tensor([reward is not None for reward in rewards]),
        }


class _Whole:
    """Reads whole groups where a stage counts rows; each process gets groups ``rank, rank + world, ...`` of a batch."""

    def __init__(self, groups: Groups, context: Context) -> None:
        self._stream, self._size, self._world = Shuffled(groups, context), groups.size, context.world
        #: rows that are never parted
        self.rows_together = groups.size

    def draw(self, count: int) -> Batch:
        """Return this process's part of the next ``count`` rows.

        Raises:
            InputError: when they are not whole groups, at least one for each process.
        """
        groups = count // self._size
        if count % self._size or groups < self._world:
            raise InputError(
                f"{count} answers an update cannot be shared out in groups of {self._size}"
                + (f" among {self._world} processes" if self._world > 1 else "")
                + f"; make batch_size a multiple of {self._size}"
                + (f", at least {self._size * self._world}" if self._world > 1 else "")
            )
        return self._stream.draw(groups)

    def advance(self, count: int) -> None:
        """Move past ``count`` rows."""
        self._stream.advance(count // self._size)

    def state_dict(self) -> dict[str, Any]:
        """Return the cursor: how many groups have been consumed."""
        return self._stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved cursor."""
        self._stream.load_state_dict(state)
