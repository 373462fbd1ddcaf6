"""Preferences: whole groups in the layout of sequences, read exactly, never parted, held out by their prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from outlay.context import Context
from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.sources import Preferences
from outlay.sources.base import IGNORED, Batch
from outlay.sources.rows import is_held_out
from outlay.testing import check_source

CHARACTERS = open_tokenizer("characters")
CONTEXT = Context(seed=1, tokenizer=CHARACTERS)
PAIRS = [{"prompt": f"{number}+1=", "chosen": str(number + 1), "rejected": "no idea"} for number in range(200)]
LISTS = [{"q": f"{number}?", "a": ["x", "yy", number], "r": [0.5, None, -1]} for number in range(60)]


def read(batch: Batch) -> list[tuple[str, str]]:
    found = []
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        answer = ids[labels != IGNORED].tolist()
        assert answer[-1] == CHARACTERS.eos_token_id
        found.append((CHARACTERS.decode(ids[(mask == 1) & (labels == IGNORED)].tolist()), CHARACTERS.decode(answer[:-1])))
    return found


def test_pairs_by_hand() -> None:
    batch = Preferences(rows=PAIRS[7:8], held_out_share=0.0).open(CONTEXT).draw(2)  # type: ignore[arg-type]
    assert read(batch) == [("7+1=", "8"), ("7+1=", "no idea")]
    assert (batch["group"].tolist(), batch["reward"].tolist(), batch["judged"].tolist()) == ([0, 0], [1.0, 0.0], [True, True])
    assert batch["input_ids"].shape == (2, 16)


def test_lists_by_hand() -> None:
    source = Preferences(rows=LISTS[5:6], prompt="q", answers="a", rewards="r", held_out_share=0.0)  # type: ignore[arg-type]
    batch = source.open(CONTEXT).draw(3)
    assert read(batch) == [("5?", "x"), ("5?", "yy"), ("5?", "5")]
    assert (batch["group"].tolist(), batch["reward"].tolist(), batch["judged"].tolist()) == ([0] * 3, [0.5, 0.0, -1.0], [True, False, True])


def test_a_group_that_comes_twice_is_two() -> None:
    batch = Preferences(rows=PAIRS[:1], held_out_share=0.0).open(CONTEXT).draw(4)  # type: ignore[arg-type]
    assert batch["group"].tolist() == [0, 0, 1, 1]


def test_files_are_read_alike(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected\n" + "".join(",".join(row.values()) + "\n" for row in PAIRS))
    parquet.write_table(pyarrow.Table.from_pylist(PAIRS), tmp_path / "a.parquet")
    expected = Preferences(rows=PAIRS).open(CONTEXT).draw(40)  # type: ignore[arg-type]
    for ending in ("jsonl", "csv", "parquet"):
        found = Preferences(path=tmp_path / f"a.{ending}").open(CONTEXT).draw(40)
        assert all(torch.equal(found[name], column) for name, column in expected.items()), ending
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LISTS))
    lists = {"prompt": "q", "answers": "a", "rewards": "r"}
    one = Preferences(path=tmp_path / "b.jsonl", **lists).open(CONTEXT).draw(30)  # type: ignore[arg-type]
    other = Preferences(rows=LISTS, **lists).open(CONTEXT).draw(30)  # type: ignore[arg-type]
    assert all(torch.equal(one[name], column) for name, column in other.items())


def test_groups_keep_to_one_side_by_their_prompt() -> None:
    source = Preferences(rows=PAIRS, held_out_share=0.3)  # type: ignore[arg-type]
    kept = source.held_out(CONTEXT)
    aside = {prompt for prompt, _ in read(kept.collate(range(len(kept))))}
    assert aside == {row["prompt"] for row in PAIRS if is_held_out(row["prompt"], 0.3)}
    rows = 2 * (200 - len(kept))
    train = read(source.open(CONTEXT).draw(rows))
    assert len(set(train)) == rows and not {prompt for prompt, _ in train} & aside


def test_groups_are_never_parted() -> None:
    stream = Preferences(rows=PAIRS).open(CONTEXT)  # type: ignore[arg-type]
    for count in (0, 1, 3):
        with pytest.raises(
            InputError, match=rf"{count} answers an update cannot be shared out in groups of 2; make batch_size a multiple of 2"
        ):
            stream.draw(count)
    two = Preferences(rows=PAIRS).open(replace(CONTEXT, rank=1, world=2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 answers .* groups of 2 among 2 processes; make batch_size a multiple of 2, at least 4"):
        two.draw(2)
    assert read(two.draw(8)) == read({name: column[[2, 3, 6, 7]] for name, column in stream.draw(8).items()})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of path, dataset and rows says what is read, found none"),
        ({"path": "a.txt"}, r"path must end in \.jsonl, \.csv, \.parquet, found 'a\.txt'"),
        ({"path": "a.csv", "answers": "a"}, r"path must end in \.jsonl, \.parquet, found 'a\.csv'"),
        ({"path": "a.csv", "chosen": "rejected"}, "prompt and answers must be different columns, found prompt, rejected, rejected"),
        ({"path": "a.csv", "held_out_share": 1.0}, r"held_out_share must lie in \[0, 1\), found 1.0"),
        ({"path": "a.csv", "longest": 0}, "longest must be > 0 tokens, found 0"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preferences(**fields)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"q": "a", "a": ["x", "y"]}], "row 1 has no column 'r'"),
        ([{"q": "a", "a": "xy", "r": [1, 2]}], "row 1: column 'a' holds 'xy'; accepted: a list"),
        ([{"q": "a", "a": ["x", "y"], "r": [1]}], "row 1: 2 answers and 1 rewards; give as many of each, at least 2"),
        ([{"q": "a", "a": ["x"], "r": [1]}], "row 1: 1 answers and 1 rewards"),
        ([{"q": "a", "a": ["x", "y"], "r": [1, "good"]}], "row 1: column 'r' holds 'good'; accepted: a finite number, or null"),
        ([{"q": "a", "a": ["x", "y"], "r": [1, float("nan")]}], "row 1: column 'r' holds nan"),
        (
            [LISTS[0], {"q": "a", "a": ["x", "y"], "r": [1, 2]}],
            "row 2: 2 answers where rows before have 3; give every prompt the same number",
        ),
    ],
)
def test_wrong_lists_are_named(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preferences(rows=rows, prompt="q", answers="a", rewards="r", held_out_share=0.0).open(CONTEXT)  # type: ignore[arg-type]


def test_missing_answers_are_named() -> None:
    with pytest.raises(InputError, match="row 1 has no column 'rejected'"):
        Preferences(rows=[{"prompt": "a", "chosen": "b"}], held_out_share=0.0).open(CONTEXT)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no group of answers is held out"):
        Preferences(rows=PAIRS, held_out_share=0.0).held_out(CONTEXT)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="sources/preferences needs a tokenizer"):
        Preferences(rows=PAIRS).open(Context(seed=0))  # type: ignore[arg-type]


# ---- the contract, a group being an example -------------------------------------------------------------------------------------------


def stacked(batch: Batch, size: int) -> Batch:
    """Return (groups, size, ...) without the groups' numbers, which count within a batch."""
    return {name: column.unflatten(0, (-1, size)) for name, column in batch.items() if name != "group"}


@dataclass(frozen=True)
class Stacked:
    units: ClassVar[tuple[str, ...]] = ("examples",)
    inner: Preferences
    size: int

    def open(self, context: Context) -> Any:
        return StackedStream(self.inner.open(context), self.size)

    def held_out(self, context: Context) -> Any:
        return StackedExamples(self.inner.held_out(context), self.size)


@dataclass
class StackedStream:
    inner: Any
    size: int

    def draw(self, count: int) -> Batch:
        return stacked(self.inner.draw(count * self.size), self.size)

    def advance(self, count: int) -> None:
        self.inner.advance(count * self.size)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.inner.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)


@dataclass
class StackedExamples:
    inner: Any
    size: int

    def __len__(self) -> int:
        return len(self.inner)

    def collate(self, indices: Sequence[int]) -> Batch:
        return stacked(self.inner.collate(indices), self.size)


@pytest.mark.parametrize(
    ("source", "size"),
    [
        (Preferences(rows=PAIRS, held_out_share=0.2), 2),  # type: ignore[arg-type]
        (Preferences(rows=LISTS, prompt="q", answers="a", rewards="r", held_out_share=0.2), 3),  # type: ignore[arg-type]
    ],
)
def test_contract(source: Preferences, size: int) -> None:
    check_source(lambda: Stacked(source, size), CONTEXT)
