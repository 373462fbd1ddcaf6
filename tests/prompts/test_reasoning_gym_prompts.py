from __future__ import annotations

import pytest
import reasoning_gym

from outlay.context import Context
from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.prompts import ReasoningGymPrompts
from outlay.rewards import Answer, ReasoningGym
from outlay.testing import check_resumable

CONTEXT = Context(seed=5, tokenizer=open_tokenizer("characters"))
PROMPTS = ReasoningGymPrompts(datasets={"chain_sum": {"max_terms": 2}, "gcd": {}})


def test_datasets_take_turns_and_their_own_answers_are_right() -> None:
    asked = PROMPTS.open(CONTEXT).draw(8)
    assert [question.kind for question in asked] == ["chain_sum", "gcd"] * 4
    assert len({question.text for question in asked}) == 8
    verdicts = ReasoningGym().judge([Answer(question, question.reference, 3, True, 9, question.place) for question in asked])
    assert [(verdict.outcome, verdict.value) for verdict in verdicts] == [("passed", 1.0)] * 8
    assert all(question.text.count("+") + question.text.count(" - ") <= 2 for question in asked[::2])


def test_places_are_passed_once_and_entries_come_in_their_order() -> None:
    part = PROMPTS.open(CONTEXT)
    asked = part.draw(8)
    assert [question.extra["entry"]["metadata"]["source_index"] for question in asked] == [0, 0, 1, 1, 2, 2, 3, 3]
    part.advance(3)
    assert part.draw(5) == asked[3:] and [question.place for question in asked] == list(range(8))


def test_the_cursor_is_resumed_and_another_seed_asks_other_questions() -> None:
    check_resumable(lambda: PROMPTS.open(CONTEXT), lambda part, step: part.advance(3 * step + 1), lambda part: part.draw(5), steps=4)
    other = PROMPTS.open(Context(6, CONTEXT.tokenizer)).draw(8)
    assert [question.text for question in other] != [question.text for question in PROMPTS.open(CONTEXT).draw(8)]


def test_what_reasoning_gym_does_not_have_is_refused() -> None:
    assert "chain_sum" in reasoning_gym.factory.DATASETS
    with pytest.raises(InputError, match="has no dataset 'chain_sums'; did you mean 'chain_sum'"):
        ReasoningGymPrompts(datasets={"chain_sums": {}}).open(CONTEXT)
    with pytest.raises(InputError, match="chain_sum does not take {'words': 3}"):
        ReasoningGymPrompts(datasets={"chain_sum": {"words": 3}}).open(CONTEXT)
    with pytest.raises(ValueError, match="at least one"):
        ReasoningGymPrompts()
