from __future__ import annotations

import json
from pathlib import Path

import pytest

from outlay.context import Context
from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.prompts import FilePrompts
from outlay.sources.rows import is_held_out
from outlay.testing import check_resumable

CONTEXT = Context(seed=5, tokenizer=open_tokenizer("characters"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    rows = [
        {"prompt": f"what is {i}+{i}?", "reference": str(2 * i), "topic": "even" if i % 2 == 0 else "odd", "tests": [i]} for i in range(40)
    ]
    file.write_text("\n\n".join(json.dumps(row) for row in rows))
    return file


def test_every_epoch_asks_everything_once_in_another_order(path: Path) -> None:
    asked = FilePrompts(path, kind="topic").open(CONTEXT).draw(80)
    first, second = asked[:40], asked[40:]
    assert sorted(question.text for question in first) == sorted(question.text for question in second)
    assert [question.text for question in first] != [question.text for question in second]
    assert [question.place for question in asked] == list(range(80))
    for question in asked:
        number = question.extra["tests"][0]
        assert (question.text, question.reference) == (f"what is {number}+{number}?", str(2 * number))
        assert question.kind == ("even" if number % 2 == 0 else "odd")


def test_held_out_prompts_are_those_whose_hash_says_so(path: Path) -> None:
    asked = {question.text for question in FilePrompts(path, held_out=0.3).open(CONTEXT).draw(60)}
    every = {f"what is {i}+{i}?" for i in range(40)}
    assert asked == {text for text in every if not is_held_out(text, 0.3)} and 0 < len(asked) < 40


def test_the_cursor_is_resumed(path: Path) -> None:
    prompts = FilePrompts(path)
    check_resumable(lambda: prompts.open(CONTEXT), lambda part, step: part.advance(13 * step), lambda part: part.draw(9), steps=4)
    other = path.with_name("other.jsonl")
    other.write_text('{"prompt": "x"}')
    with pytest.raises(InputError, match="there are 1 questions, but 40 when the run was saved"):
        FilePrompts(other).open(CONTEXT).load_state_dict(prompts.open(CONTEXT).state_dict())


def test_wrong_lines_are_named(path: Path) -> None:
    for line, told in (("{", "line 1 is not JSON"), ('{"question": "x"}', "line 1 has no text under 'prompt'"), ("", "holds no prompt")):
        path.write_text(line)
        with pytest.raises(InputError, match=told):
            FilePrompts(path).open(CONTEXT)
    with pytest.raises(InputError, match="there is no file"):
        FilePrompts(path.with_name("none.jsonl")).open(CONTEXT)
    with pytest.raises(ValueError, match=r"held_out must lie in \[0, 1\), found 1"):
        FilePrompts(path, held_out=1.0)
