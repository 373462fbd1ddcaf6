"""Pairs: which rows are compared, what is left out, and that the rows kept give the same pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_texts import groups, text

from outlay.catalog import build
from outlay.errors import Problem
from outlay.objectives.pairs import PairChoice


def ranked(rewards: list[float], **columns: list[Any]) -> dict[str, torch.Tensor]:
    """One group whose answers are one token longer each."""
    rows = [([1], [2] * (i + 1)) for i in range(len(rewards))]
    return text(rows, group=[7] * len(rewards), reward=rewards, **columns)


@pytest.mark.parametrize(("choose", "expected"), [("max_min", [[1, 3]]), ("max_second", [[1, 2]])])
def test_the_best_and_another(choose: Any, expected: list[list[int]]) -> None:
    assert PairChoice(choose).of(ranked([0.5, 0.9, 0.7, 0.1])).tolist() == expected


def test_a_random_other_is_any_other_and_the_same_each_time() -> None:
    choice, seen = PairChoice("max_random"), set()
    for token in range(40):
        batch = ranked([0.5, 0.9, 0.7, 0.1])
        batch["input_ids"][:, 0] = token
        ((best, other),) = choice.of(batch).tolist()
        assert best == 1 and choice.of(batch).tolist() == [[best, other]]
        wide = {name: torch.nn.functional.pad(column, (0, 3)) if column.dim() == 2 else column for name, column in batch.items()}
        assert choice.of(wide).tolist() == [[best, other]]
        seen.add(other)
    assert seen == {0, 2, 3}


def test_a_price_on_length_changes_the_ranking() -> None:
    # 1.0 - 0.1, 1.1 - 0.2, 1.3 - 0.3, 0.95 - 0.4
    batch = ranked([1.0, 1.1, 1.3, 0.95])
    assert PairChoice(length_penalty=0.1).of(batch).tolist() == [[2, 3]]
    assert PairChoice(length_penalty=0.5).of(batch).tolist() == [[0, 3]]
    assert PairChoice().of(batch).tolist() == [[2, 3]]


def test_equal_answers_give_no_pair_and_a_second_best_is_strictly_worse() -> None:
    assert PairChoice().of(ranked([0.5, 0.5, 0.5])).shape == (0, 2)
    assert PairChoice("max_second").of(ranked([0.9, 0.9, 0.2, 0.4])).tolist() == [[0, 3]]


def test_unjudged_and_reference_answers_are_in_no_pair() -> None:
    assert PairChoice().of(ranked([0.9, 0.1, 0.5], judged=[False, True, True])).tolist() == [[2, 1]]
    assert PairChoice().of(ranked([0.9, 0.0, 0.5], demonstration=[False, True, False])).tolist() == [[0, 2]]
    assert PairChoice().of(ranked([0.9, 0.1], judged=[True, False])).shape == (0, 2)


@pytest.mark.parametrize("choice", [PairChoice(), PairChoice("max_second"), PairChoice("max_random"), PairChoice(length_penalty=0.3)])
def test_what_is_kept_gives_the_same_pairs_and_no_group_is_lost(choice: PairChoice) -> None:
    batch = groups()
    kept = choice.without_others(batch)
    before = [[batch["input_ids"][row].tolist() for row in pair] for pair in choice.of(batch).tolist()]
    after = [[kept["input_ids"][row].tolist() for row in pair] for pair in choice.of(kept).tolist()]
    # with a price on length the shorter of two equal answers is better
    assert before == after and len(before) == (3 if choice.length_penalty else 2)
    assert kept["group"].tolist() == [3, 3, 5, 5, 9, 9][: 6 if choice.length_penalty else 5]
    assert all(torch.equal(column, choice.without_others(kept)[name]) for name, column in kept.items())


def test_reference_answers_are_kept() -> None:
    kept = PairChoice().without_others(ranked([0.9, 0.0, 0.5, 0.1, 0.2], demonstration=[False, True, False, False, False]))
    assert kept["demonstration"].tolist() == [False, True, False] and kept["reward"].tolist() == pytest.approx([0.9, 0.0, 0.1])


def test_written_short() -> None:
    problems: list[Problem] = []
    assert build(PairChoice, "max_second", "", problems) == PairChoice("max_second")
    assert build(PairChoice, {"length_penalty": 0.1}, "", problems) == PairChoice(length_penalty=0.1)
    assert not problems
    with pytest.raises(ValueError, match="choose must be one of max_min, max_second, max_random, found 'best'"):
        PairChoice("best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="length_penalty must be finite and >= 0, found -1"):
        PairChoice(length_penalty=-1.0)
