"""Tool calls: any source of answers, with the tokens marked that decide which tool is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.sources.base import IGNORED, Batch, Examples, Source, Stream
from outlay.sources.prompts import tokenizer_of


def key_places(texts: Sequence[str], names: Sequence[str]) -> list[bool]:
    """Say which tokens of a text decide on a tool: the first of its name, and for every other tool the first after what the two names share.

    A token is meant that holds the deciding character. Where one tool's name goes on where another's ends, the longer is taken, and the token after
    the shorter one's end decides for it.

    Args:
        texts: the tokens' texts, which put together are the text.
        names: the tools' names, all different.
    """
    whole = "".join(texts)
    holder = [place for place, text in enumerate(texts) for _ in text]
    found = [False] * len(texts)
    at = 0
    while at < len(whole):
        fits = [name for name in names if name and whole.startswith(name, at)]
        if not fits:
            at += 1
            continue
        name = max(fits, key=len)
        for character in {0, *(_shared(name, other) for other in names if other != name)}:
            if at + character < len(whole):
                found[holder[at + character]] = True
        at += len(name)
    return found


def _shared(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@dataclass(frozen=True)
class ToolCalls:
    """Another source's examples with the column ``key`` (n, T): True on the labelled tokens that decide on a tool; see ``key_places``.

    For ``objectives/key_tokens``. Names are looked for in the answers' texts as the tokenizer puts them together again, token by token.

    Args:
        source: where the examples come from, such as ``{table: {path: calls.jsonl}}``.
        tools: the tools' names, at least one, all different.
    """

    title: ClassVar[str] = "Tool calls with their key tokens"
    paper: ClassVar[Paper | None] = Paper(
        "2412.15495", "TL-Training: A Task-Feature-Based Framework for Training Large Language Models in Tool Use", 2024
    )
    units: ClassVar[tuple[str, ...]] = ("examples", "tokens")

    source: Source
    tools: tuple[str, ...]

    def __post_init__(self) -> None:
        require(bool(self.tools) and all(self.tools), f"tools must name at least one tool, and no name be empty, found {list(self.tools)}")
        require(len(set(self.tools)) == len(self.tools), f"tools must be different names, found {list(self.tools)}")

    def open(self, context: Context) -> Stream:
        """Return the source's stream, its batches marked.

        Raises:
            InputError: as the source does, or when the model reads no text.
        """
        return _Marked(self.source.open(context), self.tools, tokenizer_of(context, "sources/tool_calls"))

    def held_out(self, context: Context) -> Examples:
        """Return the source's held-out examples, marked."""
        return _MarkedExamples(self.source.held_out(context), self.tools, tokenizer_of(context, "sources/tool_calls"))


def marked(batch: Batch, tools: Sequence[str], tokenizer: Any) -> Batch:
    """Return the batch with the column ``key``."""
    key = torch.zeros_like(batch["labels"], dtype=torch.bool)
    for row, labels in enumerate(batch["labels"]):
        places = torch.nonzero(labels != IGNORED).flatten()
        texts = [tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in labels[places].tolist()]
        key[row, places] = torch.tensor(key_places(texts, tools), dtype=torch.bool)
    return {**batch, "key": key}


@dataclass
class _Marked:
    stream: Stream
    tools: tuple[str, ...]
    tokenizer: Any

    @property
    def labels(self) -> int:
        return int(getattr(self.stream, "labels", 0))

    @property
    def rows_together(self) -> int:
        return int(getattr(self.stream, "rows_together", 1))

    def draw(self, count: int) -> Batch:
        return marked(self.stream.draw(count), self.tools, self.tokenizer)

    def advance(self, count: int) -> None:
        self.stream.advance(count)

    def state_dict(self) -> dict[str, Any]:
        return self.stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.stream.load_state_dict(state)


@dataclass
class _MarkedExamples:
    examples: Examples
    tools: tuple[str, ...]
    tokenizer: Any

    def __len__(self) -> int:
        return len(self.examples)

    def collate(self, indices: Sequence[int]) -> Batch:
        return marked(self.examples.collate(indices), self.tools, self.tokenizer)
