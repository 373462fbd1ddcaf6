from __future__ import annotations

import pytest
from made_answers import answer, outcomes, values

import outlay
from outlay.rewards import NextSegment, ReferenceMetric, ToolUse

TRUTH = "the cat sat on the mat."


def test_prefixes_of_whole_words_match_unless_the_whole_is_asked() -> None:
    made = [answer(text, TRUTH) for text in (TRUTH, " the  cat\nsat on the mat. ", "the cat", "the ca", "cat sat", "", TRUTH + " It")]
    assert values(NextSegment(), made) == [1, 1, 1, 0, 0, 0, 0]
    assert values(outlay.make("rewards/next_segment", match="exact"), made) == [1, 1, 0, 0, 0, 0, 0]
    assert not NextSegment().matches("", "")  # an empty prediction is wrong, whatever the truth


def test_a_prefix_may_have_to_be_longer() -> None:
    made = [answer("the cat", TRUTH), answer("the cat sat", TRUTH), answer("yes", "yes")]
    assert values(NextSegment(words=3), made) == [0, 1, 1]
    with pytest.raises(ValueError, match="words must be >= 1, found 0"):
        NextSegment(words=0)


def test_a_tag_may_hold_it_and_no_truth_is_no_verdict() -> None:
    made = [answer("hm <answer>the cat</answer>", TRUTH), answer("the cat", TRUTH), answer("the", " ")]
    assert outcomes(NextSegment(inside="answer"), made) == ["passed", "failed", "unjudged"]


def test_another_judge_is_asked_about_what_does_not_match() -> None:
    near, far, empty = answer("a cat sat on the mat.", TRUTH), answer("dogs bark", TRUTH), answer("", TRUTH)
    reward = NextSegment(semantic=ReferenceMetric(metric="rouge_l", passing=0.8))
    assert values(reward, [near, far, empty, answer("the", TRUTH)]) == [1, 0, 0, 1]
    # these questions are no tool calls: that judge cannot tell
    assert outcomes(NextSegment(semantic=ToolUse()), [near, answer("the", TRUTH), empty]) == ["unjudged", "passed", "failed"]
