from __future__ import annotations

from made_answers import answer, outcomes, values

import outlay
from outlay.rewards import Exact


def test_the_stripped_text_must_equal_the_stripped_reference() -> None:
    made = [answer(" 42\n", "42 "), answer("42.", "42"), answer("", "42"), answer("4 2", "42")]
    assert outcomes(Exact(), made) == ["passed", "failed", "failed", "failed"]
    assert values(Exact(), made) == [1.0, 0.0, 0.0, 0.0]


def test_an_answer_without_its_end_is_wrong_unless_that_is_borne() -> None:
    made = [answer("42", "42", ended=False)]
    assert outcomes(Exact(), made) == ["failed"]
    assert outcomes(Exact(end_required=False), made) == ["passed"]


def test_without_a_reference_there_is_no_verdict() -> None:
    assert outcomes(Exact(), [answer("", ""), answer("x", " ", ended=False)]) == ["unjudged", "unjudged"]


def test_the_last_closed_tag_holds_the_answer() -> None:
    texts = [
        "<think>41</think><answer> 42 </answer>",
        "<answer>41</answer> no: <answer>42</answer>",
        "<answer>42</answer> no: <answer>41</answer>",
        "<answer>42</answer> <answer>41",  # the second is never closed
        "</answer>42<answer>",
        "<answer>42",
        "42",
    ]
    made = [answer(text, "42") for text in texts]
    assert values(outlay.make("rewards/exact", inside="answer"), made) == [1, 1, 0, 1, 0, 0, 0]
