from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import answer, outcomes, values, verdicts
from trl.rewards import get_soft_overlong_punishment

import outlay
from outlay.rewards import Cosine, HardCut, MissingEnd, SoftOverlong, Words


def test_soft_overlong_by_hand() -> None:
    made = [answer(tokens=tokens, limit=100) for tokens in (1, 60, 70, 80, 100)]
    assert values(SoftOverlong(buffer=40), made) == pytest.approx([0, 0, -0.25, -0.5, -1])
    assert outcomes(SoftOverlong(buffer=40), made) == ["passed"] * 2 + ["failed"] * 3
    assert values(SoftOverlong(buffer=20, longest=50), made) == pytest.approx([0, -1, -1, -1, -1])


def test_a_limit_shorter_than_the_buffer_is_all_buffer() -> None:
    assert values(SoftOverlong(), [answer(tokens=25, limit=100), answer(tokens=100, limit=100)]) == [-0.25, -1.0]


@given(st.integers(0, 400), st.integers(1, 300), st.integers(1, 300))
def test_soft_overlong_agrees_with_trl(tokens: int, longest: int, buffer: int) -> None:
    buffer = min(buffer, longest)  # theirs leaves 0 .. -1 where the buffer is longer than the limit
    theirs = get_soft_overlong_punishment(max_completion_len=longest, soft_punish_cache=buffer)
    assert values(SoftOverlong(buffer, longest), [answer(tokens=tokens)]) == pytest.approx(theirs(completion_ids=[[0] * tokens]))


def test_hard_cut_leaves_what_is_in_time() -> None:
    made = [answer("1", "1"), answer("2", "1"), answer("1", "1", ended=False), answer("1", "")]
    reward = HardCut(correct=outlay.make("rewards/exact", end_required=False))
    assert outcomes(reward, made) == ["passed", "failed", "failed", "unjudged"]
    assert values(reward, made) == [1, 0, 0, 0]


def test_hard_cut_at_a_length_of_its_own() -> None:
    made = [answer("1", "1", tokens=5), answer("1", "1", tokens=6), answer("2", "1", tokens=6)]
    assert values(HardCut(longest=5), made) == [1, 0, 0]
    shaped = HardCut(correct=Cosine(right=(3.0, 2.0)), longest=5)
    assert shaped.bounds == (-1.0, 3.0)
    assert values(shaped, made)[1:] == [0, 0]
    assert HardCut(correct=Cosine(right=(3.0, 2.0), wrong=(1.0, 1.0))).bounds == (0.0, 3.0)


def test_the_penalty_stands_in_place_of_the_reward() -> None:
    made = [answer("1", "1"), answer("2", "1"), answer("1", "1", ended=False), answer("1", ""), answer("1", "", ended=False)]
    reward = outlay.make("rewards/missing_end", correct={"exact": {"end_required": False}})
    assert [(v.outcome, v.value) for v in verdicts(reward, made)] == [
        ("passed", 10.0),
        ("failed", 0.0),
        ("failed", -10.0),
        ("unjudged", 0.0),
        ("failed", -10.0),
    ]
    assert reward.bounds == (-10.0, 10.0)
    assert MissingEnd(penalty=-1, correct=Cosine(), scale=2).bounds == (-2.0, 2.0)
    assert MissingEnd(penalty=-1, correct=Cosine(), scale=-1).bounds == (-1.0, 1.0)


def test_alone_it_is_the_penalty_only() -> None:
    made = [answer("x"), answer("x", ended=False)]
    assert [(v.outcome, v.value) for v in verdicts(MissingEnd(), made)] == [("passed", 0.0), ("failed", -10.0)]
    assert MissingEnd().bounds == (-10.0, 0.0)


def test_words_by_hand() -> None:
    made = [answer(""), answer("a  b\nc"), answer("a b c d"), answer("a b c d e")]
    assert values(Words(enough=4), made) == [0, 0.75, 1, 1]
    assert outcomes(Words(enough=4), made) == ["failed", "failed", "passed", "passed"]
    thought = [answer("<think>a b</think> c d e"), answer("a b c d e")]
    assert values(Words(enough=4, inside="think"), thought) == [0.5, 0]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("soft_overlong", {"buffer": 0}, "buffer must be > 0 tokens, found 0"),
        ("soft_overlong", {"longest": 0}, "longest must be > 0 tokens, found 0"),
        ("hard_cut", {"longest": -1}, "longest must be > 0 tokens, found -1"),
        ("missing_end", {"penalty": float("nan")}, "penalty must be finite"),
        ("missing_end", {"scale": float("inf")}, "scale must be finite"),
        ("words", {"enough": 0}, "enough must be > 0 words, found 0"),
    ],
)
def test_bad_fields_are_refused(name: str, fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        outlay.make(f"rewards/{name}", **fields)
