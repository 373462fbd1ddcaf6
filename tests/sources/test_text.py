from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outlay.context import Context
from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.sources import Text
from outlay.sources.rows import is_held_out
from outlay.sources.text import Blocks, tokenise
from outlay.tasks.corpora import CORPORA, Corpus, Document, documents, split
from outlay.testing import check_source

CHARACTERS = open_tokenizer("characters")
CONTEXT = Context(seed=5, tokenizer=CHARACTERS)
END = 2


def ids(text: str) -> list[int]:
    """Tokens of printable ASCII: four special ones, the newline, then from the blank on."""
    return [4 if letter == "\n" else ord(letter) - ord(" ") + 5 for letter in text]


def everything(blocks: Any) -> list[list[int]]:
    return blocks.collate(range(len(blocks)))["input_ids"].tolist() if len(blocks) else []


def all_training(source: Text, context: Context = CONTEXT) -> list[list[int]]:
    stream = source.open(context)
    return stream.draw(stream.state_dict()["examples"])["input_ids"].tolist()


def test_packing_by_hand() -> None:
    row = tokenise(["ab", "c", "", "de"], CHARACTERS)
    a, b, c, d, e = ids("abcde")
    assert row.tolist() == [a, b, END, c, END, END, d, e, END]
    assert row.dtype == np.uint16
    blocks = Blocks(row, 4)
    assert everything(blocks) == [[a, b, END, c], [END, END, d, e]]
    batch = blocks.collate([1, 0, 1])
    assert batch["input_ids"].tolist() == [[END, END, d, e], [a, b, END, c], [END, END, d, e]]
    assert batch["labels"].tolist() == batch["input_ids"].tolist()
    assert batch["attention_mask"].tolist() == [[1] * 4] * 3


def test_the_stream_yields_the_packed_blocks() -> None:
    texts = ["one two three four", "five six"]
    source = Text(texts=texts, held_out_share=0.0, length=5)
    row = [*ids(texts[0]), END, *ids(texts[1]), END]
    blocks = [row[i : i + 5] for i in range(0, 25, 5)]
    assert sorted(all_training(source)) == sorted(blocks)


def test_large_vocabularies_take_four_bytes() -> None:
    class Large:
        eos_token_id = 70_000

        def __len__(self) -> int:
            return 70_001

        def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
            return {"input_ids": [[65_536 + len(text)] for text in texts]}

    row = tokenise(["ab", "abc"], Large())
    assert row.dtype == np.uint32
    assert row.tolist() == [65_538, 70_000, 65_539, 70_000]


def test_documents_are_divided_as_the_corpora_are() -> None:
    chapters = documents("manual")
    train, aside = split(chapters, held_out=0.1)
    assert [is_held_out(document.text, 0.1) for document in train] == [False] * len(train)
    assert [is_held_out(document.text, 0.1) for document in aside] == [True] * len(aside)
    source = Text(corpus="manual", held_out_share=0.1, length=32)
    expected = tokenise([document.text for document in aside], CHARACTERS)
    assert everything(source.held_out(CONTEXT)) == Blocks(expected, 32).collate(range(len(expected) // 32))["input_ids"].tolist()
    expected = tokenise([document.text for document in train], CHARACTERS)
    assert sorted(all_training(source)) == sorted(everything(Blocks(expected, 32)))


def test_the_held_out_side_does_not_depend_on_the_seed(small_corpora: dict[str, list[str]]) -> None:
    source = Text(corpus="small", held_out_share=0.2, length=8)
    one, other = (everything(source.held_out(Context(seed=seed, tokenizer=CHARACTERS))) for seed in (0, 1))
    assert one == other


def test_no_letter_of_a_held_out_document_is_trained_on() -> None:
    texts = [chr(33 + number) * 40 for number in range(90)]
    source = Text(texts=texts, held_out_share=0.3, length=7)
    train = {token for block in all_training(source) for token in block} - {END}
    aside = {token for block in everything(source.held_out(CONTEXT)) for token in block} - {END}
    assert len(train) + len(aside) == 90
    assert not train & aside
    assert 15 <= len(aside) <= 40  # 27 expected


@pytest.fixture
def small_corpora(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    texts = {name: [f"{name} {number}: " + "ab" * number for number in range(40)] for name in ("small", "other")}
    for name, its in texts.items():
        read = [Document(str(number), text) for number, text in enumerate(its)]
        corpus = Corpus(name=name, title="", licence="", language="en", size=1, package=None, read=lambda read=read: iter(read))
        monkeypatch.setitem(CORPORA, name, corpus)
    return texts


def test_several_corpora_are_read_in_order(small_corpora: dict[str, list[str]]) -> None:
    both = Text(corpus=["other", "small"], held_out_share=0.0, length=20)
    assert both.corpus == ("other", "small")
    row = tokenise([*small_corpora["other"], *small_corpora["small"]], CHARACTERS)
    assert sorted(all_training(both)) == sorted(everything(Blocks(row, 20)))


def test_limit_reads_only_the_beginning(small_corpora: dict[str, list[str]]) -> None:
    drawn = []

    def endless() -> Any:
        for number in itertools.count():
            drawn.append(number)
            yield f"document {number} " + "x" * 20_000

    row = tokenise(endless(), CHARACTERS, limit=30_000)
    assert len(row) == 30_000
    assert row[:11].tolist() == ids("document 0 ")
    assert len(drawn) < 30
    source = Text(corpus="small", held_out_share=0.2, length=10, limit_tokens=200)
    train = tokenise((text for text in small_corpora["small"] if not is_held_out(text, 0.2)), CHARACTERS)
    aside = tokenise((text for text in small_corpora["small"] if is_held_out(text, 0.2)), CHARACTERS)
    assert len(train) > 200
    assert len(aside) > 50
    assert sorted(all_training(source)) == sorted(everything(Blocks(train[:200], 10)))
    assert everything(source.held_out(CONTEXT)) == everything(Blocks(aside[:50], 10))  # 200 * 0.2 / 0.8


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)


def test_files_are_read_exactly(tmp_path: Path) -> None:
    texts = ['He said: "no, 007"\nand left', "2024-01-02", "NA", " blank ends "]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts))
    (tmp_path / "a.csv").write_text('﻿text,id\n"He said: ""no, 007""\nand left",1\n2024-01-02,2\nNA,3\n blank ends ,4\n', encoding="utf-8")
    write_parquet(tmp_path / "a.parquet", {"id": [1, 2, 3, 4], "text": texts})
    expected = [[*ids(text), END] for text in texts]
    for ending in ("jsonl", "csv", "parquet"):
        source = Text(path=tmp_path / f"a.{ending}", held_out_share=0.0, length=2)
        row = [token for tokens in expected for token in tokens]
        assert sorted(all_training(source)) == sorted([row[i : i + 2] for i in range(0, len(row) // 2 * 2, 2)]), ending


def test_paragraphs_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"first\r\nline two\r\n\r\n  \n\nsecond  \n\n\n")
    row = [*ids("first\nline two\n"), END, *ids("second  \n"), END]
    assert all_training(Text(path=str(path), held_out_share=0.0, length=len(row))) == [row]


@pytest.mark.parametrize("limit", [None, 30])
def test_a_dataset_of_the_library_is_read_whole_or_streamed(tmp_path: Path, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "train.jsonl").write_text("".join(json.dumps({"body": f"text {i}"}) + "\n" for i in range(9)))
    asked = []
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **fields: asked.append(fields) or load(*args, **fields))
    source = Text(dataset=str(tmp_path / "corpus"), column="body", held_out_share=0.0, length=7, limit_tokens=limit)
    blocks = [[*ids(f"text {i}"), END] for i in range(9 if limit is None else 4)]
    assert sorted(all_training(source)) == blocks
    assert asked == [{"split": "train", "streaming": limit is not None}]


def test_a_dataset_that_cannot_be_reached_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"'nobody/nothing'.*cannot be loaded.*HF_HUB_OFFLINE is set"):
        Text(dataset="nobody/nothing").open(CONTEXT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n\n{"text": \n', "line 3 is not JSON"),
        ('{"text": "a"}\n["b"]\n', "line 2 holds list; every line is one object"),
        ('{"text": "a"}\n{"txt": "b"}\n', r"line 2 has no column 'text'; did you mean 'txt'\?"),
        ('{"text": "a"}\n{"text": null}\n', "line 2: column 'text' holds None; accepted: a text or a finite number"),
        ('{"text": true}\n', "line 1: column 'text' holds True"),
        ('{"text": NaN}\n', "line 1: column 'text' holds nan"),
        ('{"text": "\\ud800"}\n', "line 1: column 'text' holds .* which is no character"),
    ],
)
def test_bad_json_lines_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=f"bad.jsonl, {message}"):
        Text(path=path, held_out_share=0.0, length=2).open(CONTEXT)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*absent.jsonl"):
        Text(path=tmp_path / "absent.jsonl").open(CONTEXT)
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"a\.txt is not UTF-8 text \(byte 3"):
        Text(path=tmp_path / "a.txt").open(CONTEXT)
    (tmp_path / "a.csv").write_text("text,id\nhello, world,3\n")
    with pytest.raises(InputError, match=r"a\.csv, line 2: the number of fields is not the header's 2"):
        Text(path=tmp_path / "a.csv").open(CONTEXT)
    (tmp_path / "a.csv").write_text('text,id\n"hello,3\n')
    with pytest.raises(InputError, match=r"a\.csv is not CSV after line 1: unexpected end of data"):
        Text(path=tmp_path / "a.csv").open(CONTEXT)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is not one")
    with pytest.raises(InputError, match=r"a\.parquet cannot be read as Parquet"):
        Text(path=tmp_path / "a.parquet").open(CONTEXT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of corpus, path, dataset and texts says what is read, found none"),
        ({"corpus": "code", "path": "a.txt"}, "found corpus, path"),
        ({"corpus": ["code", "speches"]}, "there is no corpus 'speches'; did you mean 'speeches'"),
        ({"path": "a.pdf"}, r"path must end in \.txt, \.jsonl, \.csv, \.parquet, found 'a\.pdf'"),
        ({"corpus": "code", "held_out_share": 1.0}, r"held_out_share must lie in \[0, 1\), found 1"),
        ({"corpus": "code", "length": 1}, "length must be > 1 token, found 1"),
        ({"corpus": "code", "limit_tokens": 127}, "limit_tokens must be at least one block of 128, found 127"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Text(**fields)


def test_too_little_text_is_refused() -> None:
    with pytest.raises(InputError, match="the training documents of the texts in memory do not fill one block of 128 tokens"):
        Text(texts=["short"], held_out_share=0.0).open(CONTEXT)
    with pytest.raises(InputError, match="the held-out documents of the texts in memory do not fill one block"):
        Text(texts=["short" * 100], held_out_share=1e-9).held_out(CONTEXT)
    with pytest.raises(InputError, match="manual holds nothing out; set held_out_share > 0"):
        Text(corpus="manual", held_out_share=0.0).held_out(CONTEXT)
    with pytest.raises(InputError, match="sources/text needs a tokenizer, but the model reads no text"):
        Text(corpus="manual").open(Context(seed=0))


def test_contract() -> None:
    texts = [" ".join(f"{number}/{place}" for place in range(number % 7)) for number in range(200)]
    check_source(lambda: Text(texts=texts, held_out_share=0.2, length=16), CONTEXT)
