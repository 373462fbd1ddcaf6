from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import answer, outcomes, values

import outlay
from outlay.rewards import ReferenceMetric
from outlay.rewards.reference_metric import rouge_l, sentence_bleu, sentence_chrf

WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=8).map(" ".join)
METRICS = ["bleu", "chrf", "rouge_l", "bleu_rouge"]


def test_bleu_by_hand() -> None:
    # a b c d against a b x d: 3 of 4 words; pairs (1 + 1) / (3 + 1), triples (0 + 1) / (2 + 1), fours (0 + 1) / (1 + 1)
    assert sentence_bleu("a b c d", ["a b x d"]) == pytest.approx((3 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** 0.25)
    # brevity: 2 words for 4 cost exp(1 - 4/2); 2 of 2 words, pairs (1 + 1) / (1 + 1), no longer ones: 1 / 1
    assert sentence_bleu("a b", ["a b c d"]) == pytest.approx(math.exp(-1))
    # clipped: "a a a" may count a once by the first reference, twice by the second
    assert sentence_bleu("a a a", ["a b c", "a a b"]) == pytest.approx((2 / 3 * 2 / 3 * 1 / 2 * 1) ** 0.25)
    assert sentence_bleu("x y", ["a b"]) == 0.0


def test_rouge_l_by_hand() -> None:
    assert rouge_l("the cat on a mat", ["The cat sat on the mat"]) == pytest.approx(2 * 4 / (5 + 6))  # the cat on mat
    assert rouge_l("b a", ["a b c d", "a"]) == pytest.approx(2 / 3)
    assert rouge_l("x", ["a"]) == 0.0 and rouge_l("", ["a"]) == 0.0


def test_chrf_by_hand() -> None:
    # ab against ac: characters P = R = 1/2; pairs 0: F of each order is averaged over the two orders that there are
    assert sentence_chrf("ab", ["ac"]) == pytest.approx(0.25, abs=1e-6)
    assert sentence_chrf("abcdef", ["zzz", "abcdef"]) == pytest.approx(1.0)


def test_the_harmonic_mean() -> None:
    b, r = sentence_bleu("a b c", ["a b d"]), rouge_l("a b c", ["a b d"])
    assert values(ReferenceMetric(metric="bleu_rouge"), [answer("a b c", "a b d"), answer("x", "a")]) == [
        pytest.approx(2 / (1 / b + 1 / r)),
        0.0,
    ]


@pytest.mark.parametrize("metric", METRICS)
@given(text=WORDS, other=WORDS)
def test_a_reference_is_like_itself_and_more_references_never_hurt_the_nearest(metric: str, text: str, other: str) -> None:
    reward = outlay.make("rewards/reference_metric", metric=metric)
    made = [answer(text, text), answer(text, other, extra={"references": [text]}), answer(text, other)]
    same, several, alone = values(reward, made)
    assert same == pytest.approx(1.0) and several == pytest.approx(1.0)
    assert alone <= 1.0


@pytest.mark.parametrize("metric", METRICS)
def test_the_answer_may_stand_in_its_tag(metric: str) -> None:
    reward = outlay.make("rewards/reference_metric", metric=metric)
    made = [
        answer("<think>x y z</think><answer>a b</answer>", "a b"),
        answer("a b", "a b"),
        answer("<answer> </answer>", "a b"),
        answer("", "a b"),
    ]
    assert values(reward, made) == pytest.approx([1, 1, 0, 0])
    assert outcomes(reward, made) == ["passed", "passed", "failed", "failed"]
    whole = outlay.make("rewards/reference_metric", metric=metric, inside="")
    assert values(whole, made[:1])[0] < 0.9


def test_passing_and_what_has_no_reference() -> None:
    made = [answer("a b c", "a b d"), answer("a", ""), answer("a", "", extra={"references": ["a"]})]
    assert outcomes(ReferenceMetric(metric="rouge_l", passing=2 / 3), made) == ["passed", "unjudged", "passed"]
    assert outcomes(ReferenceMetric(metric="rouge_l", passing=0.67), made) == ["failed", "unjudged", "passed"]
    with pytest.raises(ValueError, match=r"passing must lie in \(0, 1\], found 0"):
        ReferenceMetric(passing=0)
