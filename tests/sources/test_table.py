from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outlay.context import Context
from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.sources import Table
from outlay.sources.base import IGNORED
from outlay.sources.rows import is_held_out
from outlay.testing import check_source

CHARACTERS = open_tokenizer("characters")
CONTEXT = Context(seed=1, tokenizer=CHARACTERS)
END, PAD = 2, 0
ROWS = [{"prompt": f"{number}+1=", "answer": str(number + 1)} for number in range(300)]


def ids(text: str) -> list[int]:
    return [4 if letter == "\n" else ord(letter) - ord(" ") + 5 for letter in text]


def pairs(batch: dict[str, Any]) -> list[tuple[str, str]]:
    """Prompt and answer of every row, found by the labels alone."""
    found = []
    for row, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        answer = [token for token, label in zip(row, labels, strict=True) if label != IGNORED]
        assert answer[-1] == END
        prompt = row[: row.index(END) - len(answer) + 1]
        found.append((CHARACTERS.decode(prompt), CHARACTERS.decode(answer[:-1])))
    return found


def training(source: Table, context: Context = CONTEXT) -> list[tuple[str, str]]:
    stream = source.open(context)
    return sorted(pairs(stream.draw(stream.state_dict()["examples"])))


def test_a_batch_by_hand() -> None:
    source = Table(rows=[{"prompt": "a", "answer": "bc"}], held_out_share=0.0)
    batch = source.open(CONTEXT).draw(1)
    a, b, c = ids("abc")
    assert batch["input_ids"].tolist() == [[a, b, c, END, PAD, PAD, PAD, PAD]]
    assert batch["labels"].tolist() == [[IGNORED, b, c, END, IGNORED, IGNORED, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]


def test_rows_keep_to_one_side_by_their_prompt() -> None:
    repeated = [{"q": f"question {number % 40}", "a": f"reply {number}"} for number in range(200)]
    source = Table(rows=repeated, prompt="q", answer="a", held_out_share=0.3)
    kept = source.held_out(CONTEXT)
    train, aside = training(source), pairs(kept.collate(range(len(kept))))
    assert sorted(train + aside) == sorted((row["q"], row["a"]) for row in repeated)
    assert {q for q, _ in aside} == {row["q"] for row in repeated if is_held_out(row["q"], 0.3)}
    assert not {q for q, _ in aside} & {q for q, _ in train}
    assert len({q for q, _ in aside}) * 5 == len(aside)
    assert training(source, Context(seed=2, tokenizer=CHARACTERS)) == train


def test_files_are_read_exactly(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [("how many?", "007"), ('say "hi, you"\nplease', "hi, you"), ("a date", "2024-01-02"), ("nothing", "NA")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"x": 0, "question": q, "reply": a}) + "\n" for q, a in rows))
    (tmp_path / "a.csv").write_text(
        'question,x,reply\nhow many?,0,007\n"say ""hi, you""\nplease",0,"hi, you"\na date,0,2024-01-02\nnothing,0,NA\n'
    )
    parquet.write_table(pyarrow.table({"question": [q for q, _ in rows], "reply": [a for _, a in rows]}), tmp_path / "a.parquet")
    for ending in ("jsonl", "csv", "parquet"):
        source = Table(path=tmp_path / f"a.{ending}", prompt="question", answer="reply", held_out_share=0.0)
        assert training(source) == sorted(rows), ending


def test_numbers_become_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": 12, "answer": -7}\n{"prompt": "x", "answer": 0.5}\n')
    assert training(Table(path=tmp_path / "a.jsonl", held_out_share=0.0)) == [("12", "-7"), ("x", "0.5")]


def test_chat_puts_the_prompt_into_the_template() -> None:
    tokenizer = open_tokenizer("characters")
    turn = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</{{ m['role'] }}>{% endfor %}"
    tokenizer.chat_template = turn + "{% if add_generation_prompt %}<bot>{% endif %}"
    source = Table(rows=[{"prompt": "2+2", "answer": "4"}], chat=True, held_out_share=0.0)
    assert training(source, Context(seed=0, tokenizer=tokenizer)) == [("<user>2+2</user><bot>", "4")]
    with pytest.raises(InputError, match="chat: true needs a tokenizer with a chat template"):
        source.open(CONTEXT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of path, dataset and rows says what is read, found none"),
        ({"path": "a.jsonl", "dataset": "x"}, "found path, dataset"),
        ({"path": "a.txt"}, r"path must end in \.jsonl, \.csv, \.parquet, found 'a\.txt'"),
        ({"path": "a.csv", "answer": "prompt"}, "prompt and answer must be different columns, found 'prompt' for both"),
        ({"path": "a.csv", "held_out_share": -0.1}, r"held_out_share must lie in \[0, 1\), found -0.1"),
        ({"path": "a.csv", "longest": 0}, "longest must be > 0 tokens, found 0"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Table(**fields)


def test_wrong_rows_are_named() -> None:
    with pytest.raises(InputError, match=r"row 2 has no column 'answer'; did you mean 'answers'\?"):
        Table(rows=[{"prompt": "a", "answer": "b"}, {"prompt": "a", "answers": "b"}], held_out_share=0.0).open(CONTEXT)
    with pytest.raises(InputError, match=r"a pair is 9 tokens long and the limit is 8: 'prompt'"):
        Table(rows=[{"prompt": "prompt", "answer": "12"}], held_out_share=0.0, longest=8).open(CONTEXT)
    Table(rows=[{"prompt": "prompt", "answer": "12"}], held_out_share=0.0, longest=9).open(CONTEXT)
    with pytest.raises(InputError, match="no row of the table is held out"):
        Table(rows=ROWS, held_out_share=0.0).held_out(CONTEXT)
    with pytest.raises(InputError, match="no training example"):
        Table(rows=[], held_out_share=0.0).open(CONTEXT)
    with pytest.raises(InputError, match="sources/table needs a tokenizer"):
        Table(rows=ROWS).open(Context(seed=0))


def test_contract() -> None:
    check_source(lambda: Table(rows=ROWS, held_out_share=0.2), CONTEXT)
