from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer

CHARACTERS, BYTES = open_tokenizer("characters"), open_tokenizer("bytes")
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
ordinary = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.just("\n")).filter(
    lambda text: not any(s in text for s in SPECIAL)
)


@given(ordinary)
def test_characters_are_one_token_each(text: str) -> None:
    ids = CHARACTERS(text)["input_ids"]
    assert ids == [4 if letter == "\n" else ord(letter) - 27 for letter in text]
    assert CHARACTERS.decode(ids) == text


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not any(s in text for s in SPECIAL)))
def test_bytes_hold_any_text(text: str) -> None:
    ids = BYTES(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert all(4 <= token < 260 for token in ids)
    assert BYTES.decode(ids) == text


def test_vocabularies() -> None:
    assert (len(CHARACTERS), len(BYTES)) == (4 + 96, 4 + 256)
    for tokenizer in (CHARACTERS, BYTES):
        assert [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id] == [0, 1, 2, 3]
        assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == list(SPECIAL)
    assert len({BYTES(bytes([value]).decode("latin-1"))["input_ids"][-1] for value in range(256)}) > 100


def test_what_characters_do_not_know_is_marked() -> None:
    assert CHARACTERS("a\té")["input_ids"] == [ord("a") - 27, 3, 3]


def test_a_saved_tokenizer_is_opened_by_its_folder(tmp_path: Path) -> None:
    CHARACTERS.save_pretrained(tmp_path)
    again = open_tokenizer(str(tmp_path))
    assert again("Say 1,\n2.")["input_ids"] == CHARACTERS("Say 1,\n2.")["input_ids"]
    assert (again.pad_token_id, again.eos_token_id) == (0, 2)
    assert again.decode(again("a , b .")["input_ids"]) == "a , b ."


def test_an_absent_tokenizer_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer at .*absent.*; accepted: characters, bytes, bpe-<size>, a folder or a hub name"):
        open_tokenizer(str(tmp_path / "absent"))


def test_byte_pairs_are_learnt_once_and_hold_any_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tokens as asked for; source code takes fewer of them than bytes; any text comes back; the second time it is read from the cache."""
    monkeypatch.setenv("OUTLAY_CACHE", str(tmp_path))
    tokenizer = open_tokenizer("bpe-400")
    (kept,) = (tmp_path / "tokenizers").iterdir()
    assert len(tokenizer) == 400 and kept.name.startswith("bpe-400-code-python")
    assert [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id] == [0, 1, 2, 3]
    code = "    def value(self, name):\n        return self.name\n"
    assert len(tokenizer(code)["input_ids"]) < len(code) / 1.5
    for text in (code, "naïve 日本語\t\x00", "for each of these"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    written = kept.stat().st_mtime_ns
    again = open_tokenizer("bpe-400")
    assert kept.stat().st_mtime_ns == written
    assert again(code)["input_ids"] == tokenizer(code)["input_ids"]


def test_byte_pairs_need_room_for_all_bytes() -> None:
    with pytest.raises(InputError, match="bpe needs a size of at least 300 .*, found 299"):
        open_tokenizer("bpe-299")
