from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.rewards import judgement_reward, vote, winners

SCORES = [[7, 5, 6], [6, 9, 6], [8, 5, 6]]


def test_scores_are_summed_and_one_judgement_is_itself() -> None:
    assert vote(SCORES) == [21, 19, 18]
    assert vote(SCORES[:1]) == [7, 5, 6]


@given(st.permutations(SCORES))
def test_the_order_of_judgements_does_not_matter(scores: list[list[int]]) -> None:
    assert vote(scores) == vote(SCORES)


def test_the_most_trusted_are_kept_and_equal_trust_keeps_all() -> None:
    assert vote(SCORES, [0.9, 0.1, 0.8], keep=2) == [15, 10, 12]
    assert vote(SCORES, [0.1, 0.9, 0.1], keep=1) == [6, 9, 6]
    assert vote(SCORES, [0.5, 0.5, 0.5], keep=3) == vote(SCORES, [0.5, 0.5, 0.5]) == vote(SCORES)
    assert vote(SCORES, [0.5, 0.5, 0.5], keep=2) == [13, 14, 12]  # the earlier ones


def test_ties_are_told() -> None:
    assert winners([3, 5, 5]) == [1, 2] and winners([1]) == [0]


def test_a_judgement_is_right_or_wrong() -> None:
    assert judgement_reward([3, 9, 5], best=1) == 1
    assert judgement_reward([3, 9, 5], best=2) == -1
    assert judgement_reward([9, 9, 5], best=1) == -1
    assert judgement_reward([7], label=7) == 1
    assert judgement_reward([7], label=6) == -1


def test_what_does_not_fit_is_refused() -> None:
    for arguments, message in [
        (([],), "at least one judgement"),
        (([[1], [1, 2]],), "every judgement must score all answers"),
        (([[1]], None, 1), "keep needs trust"),
        (([[1]], [1.0], 2), r"keep must lie in 1..1, found 2"),
        (([[1]], [1.0, 2.0]), "trust needs one number a judgement, found 2 for 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            vote(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs its label"):
        judgement_reward([1])
    with pytest.raises(ValueError, match="best must be the place of an answer, found 2 for 2"):
        judgement_reward([1, 2], best=2)
