from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import CONTEXT, answer, outcomes, values
from scipy.spatial import ConvexHull

from outlay.errors import InputError
from outlay.rewards import Answer, Exact, Fused, Verdict, Words
from outlay.rewards.convex_copies import convex_copies, hull_corners, misspelled, plane
from outlay.rewards.fused import fuse, profile, similarity

PROMPT = "Say something about the weather in Paris today. "


def known(tmp_path: Path, *answers: str) -> Path:
    path = tmp_path / "known.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": PROMPT, "answer": text}) for text in answers))
    return path


def test_weights_are_similarities_and_sum_to_one() -> None:
    assert fuse(0.5, []) == 0.5
    assert fuse(1.0, [(0.9, 0.0), (0.6, 2.0)]) == pytest.approx((1 + 1.2) / 2.5)
    assert fuse(0.3, [(0.9, 0.3), (0.95, 0.3)]) == pytest.approx(0.3)


def test_similarity_by_hand() -> None:
    # abc, bcd against abc, bce
    assert similarity(profile("abcd"), profile("abce")) == pytest.approx(1 / 2)
    assert similarity(profile("abcabc"), profile("abc")) == pytest.approx(2 / 6**0.5)  # abc twice, bca, cab
    assert similarity(profile("ab"), profile("ab")) == 1.0 and similarity(profile("ab"), profile("abc")) == 0.0


def test_neighbours_are_averaged_and_strangers_are_not(tmp_path: Path) -> None:
    path = known(tmp_path, "It is fine today", "It is fine today and it will be", "zzz zzz zzz zzz zzz zzz zzz zzz zzz zzz zzz zzz")
    near = similarity(profile(PROMPT + "It is fine"), profile(PROMPT + "It is fine today"))
    also = similarity(profile(PROMPT + "It is fine"), profile(PROMPT + "It is fine today and it will be"))
    assert 0.9 < near < 1 and 0.7 < also < 0.9
    mine = [answer("It is fine", prompt=PROMPT)]  # 3 words of 10; its neighbours have 4 and 8
    reward = Fused(Words(enough=10), path)
    assert values(reward, mine) == pytest.approx([(0.3 + near * 0.4) / (1 + near)])
    assert values(Fused(Words(enough=10), path, least=0.7), mine) == pytest.approx([(0.3 + near * 0.4 + also * 0.8) / (1 + near + also)])
    assert values(Fused(Words(enough=10), path, least=0.7, most=1), mine) == values(reward, mine)
    assert values(Fused(Words(enough=10), path, least=near), mine) == values(reward, mine)  # that similar, and no less
    turned = known(tmp_path, "It is fine today and it will be", "It is fine today")
    assert values(Fused(Words(enough=10), turned, least=0.7, most=1), mine) == values(reward, mine)  # the nearest, not the first
    assert values(Fused(Words(enough=10), path, most=0), mine) == [0.3]
    assert values(reward, [answer("snow", prompt="Why?")]) == [0.1]
    assert reward.bounds == (0.0, 1.0)


def test_verdicts_are_the_texts_own_and_unjudged_neighbours_are_left_out(tmp_path: Path) -> None:
    path = known(tmp_path, "It is fine today")  # without a reference: Exact cannot judge it
    mine = [answer("It is fine today", "It is fine today", prompt=PROMPT), answer("It is fine today", "", prompt=PROMPT)]
    assert values(Fused(Exact(), path), mine)[0] == 1.0
    assert outcomes(Fused(Exact(), path), mine) == ["passed", "unjudged"]


def test_known_texts_are_judged_once(tmp_path: Path) -> None:
    asked: list[str] = []

    class Noting(Words):
        def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
            asked.extend(one.text for one in answers)
            return super().judge(answers)

    judge = Fused(Noting(enough=10), known(tmp_path, "It is fine today", "nothing like it at all, whatever it is")).open(CONTEXT)
    mine = [answer("It is fine", prompt=PROMPT), answer("It is fine!", prompt=PROMPT)]
    assert judge.judge(mine) == judge.judge(mine)
    assert asked == ["It is fine today", *["It is fine", "It is fine!"] * 2]


def test_bad_fields_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read known texts from"):
        Fused(Exact(), tmp_path / "nothing").open(CONTEXT)
    with pytest.raises(ValueError, match=r"least must lie in \(0, 1\], found 0"):
        Fused(Exact(), tmp_path, least=0)
    with pytest.raises(ValueError, match="most must be >= 0, found -1"):
        Fused(Exact(), tmp_path, most=-1)


# ---- convex copies -----------------------------------------------------------------------------------------------------------------


def test_corners_by_hand() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5], [0.5, 0.0], [1, 1]])
    assert hull_corners(square) == [0, 1, 2, 3]
    assert hull_corners(np.array([[0, 0], [1, 1], [2, 2], [3, 3.0]])) == [0, 3]
    assert hull_corners(np.array([[1, 2], [1, 2.0]])) == [0]


@given(st.integers(0, 2**32 - 1))
def test_corners_agree_with_scipy_and_five_points_keep_three_to_five(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(5, 2))
    found = hull_corners(points)
    assert found == sorted(ConvexHull(points).vertices.tolist())
    assert 3 <= len(found) <= 5


def test_the_plane_keeps_distances_of_flat_points() -> None:
    flat = np.array([[0, 0], [3, 0], [0, 4.0]]) @ np.array([[0.6, 0.8, 0], [0, 0, 1]])
    found = plane(flat + np.array([5.0, -2.0, 7.0]))
    assert [np.linalg.norm(found[i] - found[j]) for i, j in ((0, 1), (0, 2), (1, 2))] == pytest.approx([3, 4, 5])
    assert plane(np.array([[1.0], [3.0]])).shape == (2, 2)


def test_a_share_of_words_is_misspelled_by_one_swap() -> None:
    text = " ".join(["weather"] * 40)
    copy = misspelled(text, 0.05, seed=0)
    changed = [word for word in copy.split() if word != "weather"]
    assert len(changed) == 2 and all(sorted(word) == sorted("weather") for word in changed)
    assert misspelled(text, 0.05, seed=0) == copy != misspelled(text, 0.05, seed=0, number=1)
    assert misspelled("ab", 0.01, seed=0) == "ba" and misspelled("a bb", 1.0, seed=0) == "a bb"
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], found 0"):
        misspelled(text, 0, seed=0)


def test_the_outermost_copies_are_kept() -> None:
    def embed(texts: list[str]) -> np.ndarray:
        assert len(texts) == 5
        return np.array([[0, 0, 9], [1, 0, 9], [1, 1, 9], [0, 1, 9], [0.5, 0.5, 9]])

    made = [misspelled("some weather today", 0.05, seed=1, number=10 + i) for i in range(5)]
    assert convex_copies("some weather today", embed, seed=1, number=2) == made[:4]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="copies must be >= 1, found 0"):
        convex_copies("a", embed, copies=0, seed=1)  # type: ignore[arg-type]
