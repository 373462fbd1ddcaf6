"""Exams of parts that do not overlap share no example, whatever the seeds: one may be tuned on, the other reported."""

from __future__ import annotations

import pytest

from outlay.context import Context
from outlay.errors import InputError
from outlay.evaluations import HeldOutLoss
from outlay.objectives import Classification
from outlay.sources import Images


def asked(part: tuple[float, float], seed: int, name: str = "exam", examples: int = 1000) -> list[bytes]:
    """The held-out digits that an exam asks about, in its order."""
    sitting = HeldOutLoss(Classification(), examples=examples, name=name, part=part).open(Context(seed), Images("digits"))
    return [row.numpy().tobytes() for batch in sitting.batches for row in batch["inputs"]]


def test_parts_share_nothing_across_seeds_and_make_up_the_whole() -> None:
    whole = set(asked((0.0, 1.0), 0))
    for seed, other in ((0, 0), (0, 1000), (3, 4)):
        tuned, reported = set(asked((0.0, 0.4), seed, "tune")), set(asked((0.4, 1.0), other, "test"))
        assert not tuned & reported
        assert tuned | reported == whole
        assert len(tuned) == pytest.approx(0.4 * len(whole), abs=1)


def test_a_part_is_the_same_for_every_seed_and_only_its_choice_differs() -> None:
    assert set(asked((0.2, 0.7), 0)) == set(asked((0.2, 0.7), 1))
    assert set(asked((0.2, 0.7), 0, examples=20)) != set(asked((0.2, 0.7), 1, examples=20))
    assert asked((0.2, 0.7), 1, examples=20) == asked((0.2, 0.7), 1, examples=20)


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(InputError, match="is empty"):
        asked((0.5, 0.5001), 0)
    with pytest.raises(ValueError, match="0 <= from < to <= 1"):
        HeldOutLoss(Classification(), part=(0.6, 0.4))
