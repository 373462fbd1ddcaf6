from __future__ import annotations

import math

import pytest

from outlay.evaluations.reward_bench import Tie, best_of_four_accuracy, ties_score


def test_only_a_strictly_highest_score_is_right() -> None:
    assert best_of_four_accuracy([[4, 1, 2, 3], [3, 3, 1, 1], [1, 2, 0, 0], [0, -1, -1, -1]]) == 0.5
    with pytest.raises(ValueError, match="at least one question"):
        best_of_four_accuracy([])
    with pytest.raises(ValueError, match="at least one rejected"):
        best_of_four_accuracy([[1.0]])


def test_a_perfect_and_a_constant_model() -> None:
    assert ties_score([Tie(([1], [0]), ([1, 1], [0, 0]))]) == pytest.approx(1.01)
    assert ties_score([Tie(([0], [0]), ([0, 0], [0]))]) == 0.0


def test_every_part_by_hand() -> None:
    # spread 2; gaps: tied 3, reference 1
    first = Tie(([6.0], [5.0]), ([7.0, 5.0], [2.0, 1.0]))
    assert ties_score([first]) == pytest.approx(0.3 + 0.3 + 0.2 + 0 + 0.01 * math.tanh(1 / 2 - 1))
    # spread 1; gaps: tied -1, reference 4
    second = Tie(([6.0], [2.0]), ([3.0, 2.0], [3.0]))
    assert ties_score([second]) == pytest.approx(0.3 + 0.01 * math.tanh(-2))
    assert ties_score([first, second]) == pytest.approx((ties_score([first]) + ties_score([second])) / 2)
    # spread 1; gaps 1.5 and 2: all but the last part are full
    third = Tie(([6.0], [4.0]), ([5.0, 4.0], [2.5]))
    assert ties_score([third]) == pytest.approx(1 + 0.01 * math.tanh(0.5))
    # spread 0 and a negative gap
    assert ties_score([Tie(([1], [0]), ([1, 1], [2]))]) == pytest.approx(0.3 - 0.01)


def test_both_versions_need_both_sides() -> None:
    with pytest.raises(ValueError, match="both versions need right and wrong answers"):
        Tie(([1], []), ([1], [0]))
    with pytest.raises(ValueError, match="at least one question"):
        ties_score([])
