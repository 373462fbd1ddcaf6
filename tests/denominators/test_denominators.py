"""Denominators: where log pi_ref comes from, and what corrects for a sampler that computed otherwise than the trainer."""

from __future__ import annotations

import math

import pytest
import torch

from outlay.denominators import Behaviour, Current, Denominator, Old, Unknown
from outlay.sequences import shifted
from outlay.testing import check_denominator, rollout_batch

BATCH = rollout_batch()
CURRENT = shifted(rollout_batch(1), "behaviour").clone().requires_grad_()


def test_whose_probabilities_each_takes() -> None:
    assert torch.equal(Current().log_probs(CURRENT, BATCH), CURRENT.detach())
    assert torch.equal(Behaviour().log_probs(CURRENT, BATCH), BATCH["behaviour"][:, 1:])
    assert torch.equal(Old().log_probs(CURRENT, BATCH), BATCH["old"][:, 1:])
    assert not Unknown().log_probs(CURRENT, BATCH).any()
    assert [one.needs_old for one in (Current(), Behaviour(), Old(), Unknown())] == [False, False, True, False]
    assert [one.correction(BATCH) for one in (Current(), Behaviour(), Unknown())] == [None] * 3


#: an answer of three tokens: exp(old - behaviour) = 1/2, 3/2, 4 for its tokens, 3 for the whole
APART = {
    "labels": torch.tensor([[-100, 1, 2, 3, -100]]),
    "old": torch.tensor([[0.0, math.log(0.5), math.log(1.5), math.log(4), 9.0]]) - 5.0,
    "behaviour": torch.full((1, 5), -5.0),
}


@pytest.mark.parametrize(
    ("denominator", "expected"),
    [
        (Old(), [0.5, 1.5, 2.0]),
        (Old(cap=1.0), [0.5, 1.0, 1.0]),
        (Old("mask"), [0.5, 1.5, 0.0]),
        (Old("mask", cap=5.0, floor=0.6), [0.0, 1.5, 4.0]),
        (Old("truncate", "sequence"), [2.0, 2.0, 2.0]),
        (Old("truncate", "sequence", cap=9.0), [3.0, 3.0, 3.0]),
        (Old("mask", "sequence"), [0.0, 0.0, 0.0]),
        (Old("mask", "sequence", cap=3.5), [3.0, 3.0, 3.0]),
    ],
    ids=str,
)
def test_corrections_by_hand(denominator: Old, expected: list[float]) -> None:
    found = denominator.correction(APART)
    assert found is not None
    assert found[0, :3].tolist() == pytest.approx(expected, abs=1e-5)


def test_what_lies_outside_the_answer_is_not_corrected_for() -> None:
    found = Old("truncate", "token", cap=100.0).correction(APART)
    assert found is not None and found[0, 3] == 1.0


def test_without_the_samplers_probabilities_there_is_nothing_to_correct() -> None:
    assert Old("none").correction(BATCH) is None
    assert Old().correction({name: column for name, column in BATCH.items() if name != "behaviour"}) is None


@pytest.mark.parametrize(
    "denominator",
    [Current(), Behaviour(), Unknown(), Old(), Old("mask"), Old("none"), Old(level="sequence"), Old("mask", "sequence", 3.0, 0.5)],
    ids=str,
)
def test_contract(denominator: Denominator) -> None:
    check_denominator(denominator)


def test_what_is_refused() -> None:
    for wrong, message in (
        (lambda: Old("cut"), "correction_by must be truncate, mask or none, found 'cut'"),  # type: ignore[arg-type]
        (lambda: Old(level="row"), "level must be token or sequence"),  # type: ignore[arg-type]
        (lambda: Old(cap=0), "cap must be > 0"),
        (lambda: Old("mask", cap=1.0, floor=2.0), r"floor must lie in \[0, cap\], found 2.0 and cap 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
