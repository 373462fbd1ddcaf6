"""Rows: texts out of a local file or a hub dataset, read exactly as they are written, and the side of the split each belongs to."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from outlay import rng
from outlay.errors import InputError, MissingExtra, nearest

#: endings of files with named columns
COLUMNS = (".jsonl", ".csv", ".parquet")
_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


def is_held_out(text: str, share: float) -> bool:
    """Say whether a text is held out: its own hash alone decides, so equal texts are never on both sides, whatever seed or file.

    This is the division of ``outlay.tasks.corpora.split``: what one of them holds out the other never trains on.

    Args:
        text: what identifies the example (a document, a prompt).
        share: expected share held out, in [0, 1).
    """
    digest = hashlib.sha256(text.encode()).hexdigest()
    return rng.derive(0, f"tasks/corpora/split/{digest}") / 2**63 < share


def file_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the named columns of a .jsonl, .csv or .parquet file as texts, row by row. A .csv begins with a line of column names.

    Nothing is guessed: ``007`` in a .csv and ``"2024-01-02"`` in a .jsonl stay the texts they are.

    Raises:
        InputError: naming the file and the line: when it is not there, cannot be read, or lacks a column.
        MissingExtra: for a .parquet file without the package datasets.
    """
    for place, row in file_records(path):
        yield texts_of(row, columns, place)


def file_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of a .jsonl, .csv or .parquet file as they are, each with its place for messages.

    Raises:
        InputError: naming the file and the line: when it is not there or cannot be read.
        MissingExtra: for a .parquet file without the package datasets.
    """
    readers = {".jsonl": _json_lines, ".csv": _csv_lines, ".parquet": _parquet_rows}
    if path.suffix not in readers:
        raise InputError(f"{path} ends in {path.suffix or 'nothing'!r}; accepted: {', '.join(readers)}")
    _must_exist(path)
    try:
        for place, row in readers[path.suffix](path):
            yield f"{path}, {place}", row
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8") from error


def file_paragraphs(path: Path) -> Iterator[str]:
    """Yield the paragraphs of a text file, which blank lines separate.

    Raises:
        InputError: when there is no such file or it is not UTF-8.
    """
    _must_exist(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8") from error
    for paragraph in _BLANK_LINES.split(text):
        if paragraph.strip():
            yield paragraph.strip("\n") + "\n"


def hub_rows(name: str, subset: str | None, split: str, columns: Sequence[str], streaming: bool) -> Iterator[tuple[str, ...]]:
    """Yield the named columns of a dataset on the Hugging Face hub (or in its cache) as texts.

    Args:
        name: the dataset's name, ``owner/name``, or a local folder the library datasets loads.
        subset: name of its configuration, where it has several.
        split: which of its splits.
        columns: the columns wanted.
        streaming: read over the network as it goes instead of downloading all of it first.

    Raises:
        InputError: when it cannot be reached or found, or lacks a column.
        MissingExtra: without the package datasets.
    """
    for place, row in hub_records(name, subset, split, streaming):
        yield texts_of(row, columns, place)


def hub_records(name: str, subset: str | None, split: str, streaming: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of a dataset on the Hugging Face hub as they are, each with its place for messages; see ``hub_rows``."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "hf") from None
    try:
        loaded = datasets.load_dataset(name, subset, split=split, streaming=streaming)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        offline = "HF_HUB_OFFLINE is set, so only what was downloaded before can be read" if datasets.config.HF_HUB_OFFLINE else ""
        advice = offline or "check the spelling, the subset and split, and the network; private datasets need HF_TOKEN"
        raise InputError(f"the dataset {name!r} (subset {subset!r}, split {split!r}) cannot be loaded: {said}; {advice}") from error
    for place, row in _numbered(loaded):
        yield f"dataset {name}, {place}", row


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"there is no file {path}; relative paths start in {Path.cwd()}")


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number} is not JSON ({error.msg} at column {error.colno})") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number} holds {type(row).__name__}; every line is one object {{...}}")
            yield f"line {number}", row


def _csv_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # utf-8-sig: spreadsheets write a byte order mark, which would become part of the first column's name
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    width = len(reader.fieldnames or [])
                    rule = f"the number of fields is not the header's {width}; put quotes around fields that hold commas"
                    raise InputError(f"{path}, line {reader.line_num}: {rule}")
                yield f"line {reader.line_num}", row
        except csv.Error as error:
            raise InputError(f"{path} is not CSV after line {reader.line_num}: {error}; .jsonl and .parquet hold any text") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingExtra("datasets", "hf") from None
    try:
        number = 0
        with parquet.ParquetFile(path) as opened:
            for batch in opened.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except ArrowException as error:
        raise InputError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _numbered(loaded: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    number = 0
    for batch in loaded.iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            number += 1
            yield f"row {number}", dict(zip(batch, values, strict=True))


def texts_of(row: Mapping[str, Any], columns: Sequence[str], place: str) -> tuple[str, ...]:
    """Return the named columns of a row as texts.

    Raises:
        InputError: naming the place, when the row lacks a column or holds something else than a text or a number there.
    """
    texts = []
    for column in columns:
        if column not in row:
            raise InputError(f"{place} has no column {column!r}{nearest(column, [str(known) for known in row])}")
        value = row[column]
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not isinstance(value, str) and not number:
            raise InputError(f"{place}: column {column!r} holds {value!r}; accepted: a text or a finite number")
        texts.append(_encodable(str(value), column, place))
    return tuple(texts)


def _encodable(text: str, column: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can escape half of a surrogate pair, which is no character
        raise InputError(f"{place}: column {column!r} holds {text[error.start]!r}, which is no character; repair the text") from error
    return text


def memory_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the named columns of rows held in memory as texts.

    Raises:
        InputError: naming the row that lacks a column or holds something else than a text or a number there.
    """
    for number, row in enumerate(rows, 1):
        yield texts_of(row, columns, f"row {number}")
