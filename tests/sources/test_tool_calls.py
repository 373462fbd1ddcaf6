"""Tool calls: where names decide, and the marks on another source's batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from outlay.context import Context
from outlay.models.tokenizers import open_tokenizer
from outlay.objectives import KeyTokens
from outlay.sources import Table, ToolCalls
from outlay.sources.base import IGNORED
from outlay.sources.tool_calls import key_places
from outlay.testing import check_source

CHARACTERS = open_tokenizer("characters")
CONTEXT = Context(seed=1, tokenizer=CHARACTERS)
TOOLS = ("get_news", "get_name", "put")
ROWS = [{"prompt": f"get_name {i}?", "answer": f"{tool}({i})"} for i in range(60) for tool in TOOLS]


def test_names_decide_where_they_begin_and_where_they_part() -> None:
    names = ["get_news", "get_name", "put"]
    # g decides against put; n-e against n-a; the others follow
    assert key_places(list("get_news"), names) == [True, False, False, False, False, True, False, False]
    assert key_places(["say ", "get", "_n", "ews", "(", "put", ")"], names) == [False, True, False, True, False, True, False]
    assert key_places(list("nothing"), names) == [False] * 7
    # a name that goes on where another ends parts from it there; a token may hold both places
    assert key_places(["sum", "_all", "()"], ["sum", "sum_all"]) == [True, True, False]
    assert key_places(["sum", "(", ")"], ["sum", "sum_all"]) == [True, True, False]
    assert key_places(["sum_all"], ["sum", "sum_all"]) == [True]


@pytest.mark.parametrize("name", ["characters", "bytes"])
def test_a_batch_is_marked_in_its_answers_alone(name: str) -> None:
    tokenizer = open_tokenizer(name)
    source = ToolCalls(Table(rows=(ROWS[0], ROWS[2]), held_out_share=0.0), TOOLS)  # type: ignore[arg-type]
    batch = source.open(Context(seed=0, tokenizer=tokenizer)).draw(2)
    found = {}
    for ids, labels, key in zip(batch["input_ids"], batch["labels"], batch["key"], strict=True):
        assert not key[labels == IGNORED].any()
        answer = labels != IGNORED
        found[tokenizer.decode(ids[answer].tolist()[:-1])] = torch.nonzero(key[answer]).flatten().tolist()
    assert found == {"get_news(0)": [0, 5], "put(0)": [0]}
    assert KeyTokens().weight(batch) == pytest.approx(32)  # 3 keys, of weight 16 / 3, among 16 others


def test_held_out_examples_are_marked() -> None:
    kept = ToolCalls(Table(rows=tuple(ROWS), held_out_share=0.2), TOOLS).held_out(CONTEXT)
    assert kept.collate(range(len(kept)))["key"].any(1).all()


@pytest.mark.parametrize(
    ("tools", "message"),
    [((), "tools must name at least one tool"), (("a", ""), "no name be empty"), (("a", "a"), "tools must be different names")],
)
def test_wrong_names_are_refused(tools: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToolCalls(Table(rows=tuple(ROWS)), tools)


def test_contract() -> None:
    check_source(lambda: ToolCalls(Table(rows=tuple(ROWS), held_out_share=0.2), TOOLS), CONTEXT)
