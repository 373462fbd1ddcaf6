from __future__ import annotations

from pathlib import Path

import pytest

from outlay.context import Context
from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.prompts import SegmentPrompts
from outlay.rewards import Answer, NextSegment
from outlay.sources.rows import is_held_out
from outlay.testing import check_resumable

CONTEXT = Context(seed=5, tokenizer=open_tokenizer("characters"))
TEXT = "One is first. Two follows it! Is three next? Four ends."


def test_each_segment_but_the_first_is_asked_for_after_those_before_it() -> None:
    asked = SegmentPrompts(texts=(TEXT,), before=2).questions(TEXT)
    assert [(question.text, question.reference, question.kind) for question in asked] == [
        ("One is first. ", "Two follows it!", "next"),
        ("One is first. Two follows it! ", "Is three next?", "next"),
        ("Two follows it! Is three next? ", "Four ends.", "next"),
    ]


def test_a_share_of_the_questions_shows_what_comes_after() -> None:
    words = " ".join(f"w{i}" for i in range(41))
    asked = SegmentPrompts(texts=(words,), unit="word", before=1, middle=0.25, form_middle="{before}_{after}=").questions(words)
    inside = [question for question in asked if question.kind == "middle"]
    assert len(asked) == 40 and len(inside) == 9  # the last word has nothing after it
    assert (inside[0].text, inside[0].reference) == ("w3_w5=", "w4")
    every = SegmentPrompts(texts=(TEXT,), middle=1.0).questions(TEXT)
    assert [question.kind for question in every] == ["middle", "middle", "next"]
    assert all(question.kind == "next" for question in SegmentPrompts(texts=(words,), unit="word").questions(words))


def test_long_segments_are_passed_over_and_the_truth_is_rewarded() -> None:
    assert not SegmentPrompts(texts=(TEXT,), longest=9).questions(TEXT)
    asked = SegmentPrompts(texts=(TEXT,), longest=10).questions(TEXT)
    assert [question.reference for question in asked] == ["Four ends."]
    [verdict] = NextSegment().open(CONTEXT).judge([Answer(asked[0], "Four ends.", 9, True, 20, 0)])
    assert (verdict.outcome, verdict.value) == ("passed", 1.0)


def test_held_out_texts_are_not_asked_about(tmp_path: Path) -> None:
    texts = [f"Text {i} begins. It is number {i}." for i in range(60)]
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(texts))
    asked = SegmentPrompts(path=file, held_out=0.3).open(CONTEXT)
    count = sum(not is_held_out(text + "\n", 0.3) for text in texts)
    assert 30 < count < 55 and asked.state_dict()["questions"] == count
    assert len({question.reference for question in asked.draw(count)}) == count


def test_the_cursor_is_resumed() -> None:
    prompts = SegmentPrompts(texts=(TEXT, TEXT + " Five."), held_out=0.0)
    check_resumable(lambda: prompts.open(CONTEXT), lambda part, step: part.advance(2 * step), lambda part: part.draw(5), steps=4)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="just one of corpus, path and texts must be given, found none"):
        SegmentPrompts()
    with pytest.raises(ValueError, match=r"middle must lie in \[0, 1\]"):
        SegmentPrompts(corpus="code", middle=2.0)
    with pytest.raises(ValueError, match="form must hold"):
        SegmentPrompts(corpus="code", form="go on")
    with pytest.raises(InputError, match="no text has two segments"):
        SegmentPrompts(texts=("alone",), held_out=0.0).open(CONTEXT)
