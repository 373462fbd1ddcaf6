from __future__ import annotations

import math

from outlay.context import Context
from outlay.models.tokenizers import open_tokenizer
from outlay.prompts import ReasoningPrompts
from outlay.sources.prompts import draw_problems
from outlay.testing import check_resumable

CONTEXT = Context(seed=5, tokenizer=open_tokenizer("characters"))
PROMPTS = ReasoningPrompts(tasks={"gcd": (2, 3), "reverse": (2,)})


def test_cells_come_in_equal_numbers_and_answers_are_right() -> None:
    asked = PROMPTS.open(CONTEXT).draw(300)
    kinds = [question.kind for question in asked]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"gcd/2": 100, "gcd/3": 100, "reverse/2": 100}
    assert [question.place for question in asked] == list(range(300))
    assert len({tuple(kinds[start : start + 3]) for start in range(0, 300, 3)}) == 6  # each round in an order of its own
    for question in asked:
        inside = question.text[1:-1]
        wanted = inside[::-1] if question.kind.startswith("reverse") else str(math.gcd(*map(int, inside.split(","))))
        assert question.reference == wanted


def test_no_held_out_question_is_asked() -> None:
    asked = {question.text for question in PROMPTS.open(CONTEXT).draw(1500)}
    held_out = {problem.prompt for problem in draw_problems(PROMPTS.tasks, "held_out", 200, 0, "short")}
    seen = {problem.prompt for problem in draw_problems(PROMPTS.tasks, "train", 2000, 0, "short")}
    assert len(held_out) > 200 and not asked & held_out
    assert len(asked & seen) > 200  # the two sides are compared in the same space


def test_the_cursor_is_resumed_without_reading_from_the_start() -> None:
    check_resumable(lambda: PROMPTS.open(CONTEXT), lambda part, step: part.advance(5 * step + 1), lambda part: part.draw(7), steps=4)


def test_another_seed_asks_other_questions() -> None:
    first, second = (PROMPTS.open(Context(seed, CONTEXT.tokenizer)).draw(50) for seed in (1, 2))
    assert [question.text for question in first] != [question.text for question in second]
