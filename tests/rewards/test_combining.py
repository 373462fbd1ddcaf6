from __future__ import annotations

import pytest

from outlay.rewards import combine, failed, passed, passed_shares, unjudged, unjudged_shares

FOUND = {
    "right": [passed(), failed(), passed(), unjudged("crashed"), failed()],
    "short": [passed(0.5), failed(-0.5), unjudged("no length"), passed(0.25), failed(-0.25)],
}


def test_values_are_summed_by_weight_where_all_have_judged() -> None:
    values, judged = combine(FOUND, {"right": 2.0, "short": -1.0})
    assert values == [1.5, 0.5, 0.0, 0.0, 0.25]
    assert judged == [True, True, False, False, True]


def test_a_reward_of_no_weight_is_not_asked() -> None:
    assert combine(FOUND, {"right": 0.0, "short": 1.0}) == ([0.5, -0.5, 0.0, 0.25, -0.25], [True, True, False, True, True])
    assert combine(FOUND, {"right": 0.0, "short": 0.0}) == ([0.0] * 5, [True] * 5)
    assert combine({}, {}) == ([], [])
    assert combine({"right": []}, {"right": 1.0}) == ([], [])


def test_shares_are_of_what_was_judged() -> None:
    assert passed_shares(FOUND) == {"right": 0.5, "short": 0.5}
    assert passed_shares({"a": [passed(), passed(), failed(), unjudged("")], "b": [unjudged("")], "c": []}) == {"a": pytest.approx(2 / 3)}
    assert unjudged_shares(FOUND | {"c": []}) == {"right": 0.2, "short": 0.2}


def test_weights_and_lengths_must_fit() -> None:
    with pytest.raises(ValueError, match=r"every reward needs a weight.*found \['right', 'short'\] and \['right'\]"):
        combine(FOUND, {"right": 1.0})
    with pytest.raises(ValueError, match=r"found numbers of verdicts \{'a': 1, 'b': 0\}"):
        combine({"a": [passed()], "b": []}, {"a": 1.0, "b": 0.0})
