from __future__ import annotations

import math

import pytest
from made_answers import answer, outcomes, values

from outlay.rewards import ReferenceMetric, Standardised, Words


def test_mean_and_deviation_of_the_group_by_hand() -> None:
    made = [answer("a " * words, group=group) for words, group in ((1, 0), (2, 0), (3, 0), (4, 1), (4, 1), (2, 2))]
    # of 1, 2, 3: mean 2, variance 2/3
    assert values(Standardised(Words(enough=10)), made) == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5), 0, 0, 0])


def test_unjudged_answers_enter_no_statistic() -> None:
    made = [answer("a", "a"), answer("b", "a"), answer("a", "")]
    reward = Standardised(ReferenceMetric(metric="rouge_l"))
    assert values(reward, made)[:2] == pytest.approx([1, -1])
    assert outcomes(reward, made) == ["passed", "failed", "unjudged"]


def test_equal_values_with_rounding_errors_are_equal() -> None:
    made = [answer("a " * 1) for _ in range(3)]
    assert values(Standardised(Words(enough=10)), made) == [0, 0, 0]  # .1 + .1 + .1 is not .3
