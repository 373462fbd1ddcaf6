"""What is read of a question's text: the hash by hand, its invariances, and that every process finds the same."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.estimators import text_features
from outlay.estimators.features import logistic, standardised

BITS = 2**64 - 1


def by_hand(text: str) -> np.ndarray:
    counts = np.zeros(256)
    for length in (1, 2, 3):
        for start in range(len(text) - length + 1):
            key = sum(ord(character) << 21 * place for place, character in enumerate(text[start : start + length]))
            key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & BITS
            key = (key ^ key >> 27) * 0x94D049BB133111EB & BITS
            key ^= key >> 31
            counts[key % 256] += -1 if key >> 32 & 1 else 1
    norm = np.sqrt((counts**2).sum())
    return counts / norm if norm else counts


@given(st.lists(st.text(max_size=12), max_size=4))
def test_runs_of_one_to_three_characters_are_counted(texts: list[str]) -> None:
    found = text_features(texts)
    assert found.shape == (len(texts), 256)
    assert found == pytest.approx(np.array([by_hand(text) for text in texts]).reshape(-1, 256), abs=1e-12)


def test_texts_do_not_run_into_each_other() -> None:
    joined = text_features(["ab", "", "c", "ab"])
    assert np.array_equal(joined[0], text_features(["ab"])[0])
    assert np.array_equal(joined[0], joined[3])
    assert not joined[1].any()


def test_alike_questions_lie_near_and_order_tells() -> None:
    one, near, far, turned = text_features(["the sum of 12 and 7", "the sum of 12 and 8", "Is Rome in Italy?", "7 dna 21 fo mus eht"])
    assert one @ near > 0.8 > one @ turned > one @ far


def test_every_process_finds_the_same() -> None:
    code = "from outlay.estimators import text_features; print(text_features(['grüße 3', '😀b']).tobytes().hex())"
    others = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert others == {text_features(["grüße 3", "😀b"]).tobytes().hex()}


def test_standardised_coordinates_are_cut_and_still_ones_are_nought() -> None:
    mean, variance = np.array([1.0, 2.0, 1e6]), np.array([4.0, 0.0, 1e-3])
    assert standardised(np.array([[2.0, 5.0, 1.0], [21.0, 2.0, 1e6]]), mean, variance).tolist() == [[0.5, 0, 0], [5, 0, 0]]


def test_the_logistic_function_does_not_overflow() -> None:
    assert logistic(np.array([-1e4, 0.0, np.log(3), 1e4])) == pytest.approx([0, 0.5, 0.75, 1])
