"""Products, and schedules one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.schedules import Constant, Cosine, Linear, Product, Rex, Sampled, Sequence, Warmup, WarmupStableDecay
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)


# ---- product -------------------------------------------------------------------------------------------------------------------------


@given(progress)
def test_a_product_multiplies(p: float) -> None:
    assert Product((Rex(), Cosine(0.1), Linear(2.0, 1.0))).value(p) == pytest.approx(
        Rex().value(p) * Cosine(0.1).value(p) * Linear(2.0, 1.0).value(p), rel=1e-15, abs=1e-300
    )
    assert Product((Rex(),)).value(p) == Rex().value(p)
    assert Product((Rex(), Constant(-0.5))).value(p) == -0.5 * Rex().value(p)


def test_a_product_by_hand() -> None:
    assert Product((Linear(), Linear(0.0, 1.0), Constant(4.0))).value(0.5) == 1.0
    assert Product((Linear(), Linear(0.0, 1.0), Constant(4.0))).value(0.25) == 0.75


def test_a_product_agrees_with_torchs_chain(walk: Callable[..., list[float]]) -> None:
    def chain(optimizer: torch.optim.Optimizer) -> object:
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.25, 1.0, total_iters=40)
        steps = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[10, 30], gamma=0.5)
        return torch.optim.lr_scheduler.ChainedScheduler([rise, steps], optimizer)

    ours = Product((Linear(0.25, 1.0), Sequence((Constant(1.0), Constant(0.5), Constant(0.25)), (1, 2, 1))))
    assert walk(chain, 40) == pytest.approx([ours.value(t / 40) for t in range(41)], rel=1e-12)


def test_a_product_needs_a_factor() -> None:
    with pytest.raises(ValueError, match="factors must hold at least one schedule, found none"):
        Product(())


# ---- sequence ------------------------------------------------------------------------------------------------------------------------


def test_pieces_follow_one_another_each_seeing_its_whole() -> None:
    schedule = Sequence((Linear(0.0, 1.0), Constant(5.0), Linear(2.0, 0.0)), (0.25, 0.5, 0.25))
    points = (0.0, 0.125, 0.24999999, 0.25, 0.5, 0.7499, 0.75, 0.875, 1.0)
    assert [schedule.value(p) for p in points] == pytest.approx([0.0, 0.5, 1.0, 5.0, 5.0, 5.0, 2.0, 1.0, 0.0], abs=1e-6)


def test_shares_are_equal_unless_given_and_normalised() -> None:
    pieces = (Linear(), Cosine(), Rex())
    for p in (0.0, 0.2, 1 / 3, 0.5, 2 / 3, 0.9, 1.0):
        assert Sequence(pieces).value(p) == Sequence(pieces, (7, 7, 7)).value(p)
    assert Sequence(pieces, (1, 2, 5)).value(0.3) == pytest.approx(Sequence(pieces, (0.125, 0.25, 0.625)).value(0.3), rel=1e-15)
    assert Sequence((Rex(),)).value(0.3) == Rex().value(0.3)


@given(st.lists(st.integers(min_value=1, max_value=20), min_size=2, max_size=12), st.sampled_from([1.0, 0.1, 1 / 3]))
def test_a_boundary_opens_the_next_piece_however_it_was_computed(shares: list[int], factor: float) -> None:
    """Progress at a boundary is steps / steps, a number that sums of float shares may miss by an ulp: 0.1 + 0.2 > 0.3."""
    schedule = Sequence(tuple(Constant(float(i)) for i in range(len(shares))), tuple(share * factor for share in shares))
    total = sum(shares)
    for i in range(1, len(shares)):
        boundary = sum(shares[:i]) / total
        assert schedule.value(boundary) == i
        assert schedule.value(boundary - 1e-6) == i - 1
    assert schedule.value(1.0) == len(shares) - 1


@given(st.lists(st.floats(min_value=0.01, max_value=10), min_size=1, max_size=6), progress)
def test_every_piece_is_read_inside_the_unit_interval(shares: list[float], p: float) -> None:
    class Echo:
        def __init__(self, number: int) -> None:
            self.number = number

        def value(self, progress: float) -> float:
            assert 0.0 <= progress <= 1.0
            return self.number + progress / 2

    schedule = Sequence(tuple(Echo(i) for i in range(len(shares))), tuple(shares))
    total = math.fsum(shares)
    found = schedule.value(p)
    i = int(found)
    start = math.fsum(shares[:i]) / total
    assert found - i == pytest.approx(min(1.0, max(0.0, (p - start) / (shares[i] / total))) / 2, abs=1e-6)
    assert start - 1e-8 <= p <= start + shares[i] / total + 1e-8
    assert schedule.value(1.0) == len(shares) - 0.5


def test_shares_too_small_to_be_told_from_nothing() -> None:
    assert Sequence((Linear(), Constant(7.0)), (1, 1e-20)).value(1.0) == 7.0
    assert Sequence((Linear(), Constant(7.0)), (1, 1e-20)).value(0.5) == 0.5
    assert Sequence((Constant(7.0), Linear()), (1e-20, 1)).value(0.5) == 0.5


def test_step_decay_agrees_with_torch(walk: Callable[..., list[float]]) -> None:
    peer = walk(lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[30, 60, 90], gamma=0.1), 99)
    ours = Sequence(tuple(Constant(0.1**i) for i in range(4)), (0.3, 0.3, 0.3, 0.1))
    assert peer == pytest.approx([ours.value(t / 100) for t in range(100)], rel=1e-12)


def test_agrees_with_torchs_sequence(walk: Callable[..., list[float]]) -> None:
    def sequence(optimizer: torch.optim.Optimizer) -> object:
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=16)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=48)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[16])

    ours = Sequence((Linear(0.1, 1.0), Cosine()), (1, 3))
    assert walk(sequence, 64) == pytest.approx([ours.value(t / 64) for t in range(65)], abs=1e-12)


@given(progress)
def test_warm_up_stable_decay_is_a_sequence(p: float) -> None:
    ours = Sequence((Linear(0.0, 1.0), Constant(), Cosine(0.1)), (1, 2, 1))
    assert ours.value(p) == pytest.approx(WarmupStableDecay(0.25, 0.25, "cosine", 0.1).value(p), abs=1e-8)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((1.0,), "2 pieces need as many shares, found 1"),
        ((1.0, 2.0, 3.0), "2 pieces need as many shares, found 3"),
        ((1.0, 0.0), r"shares must be finite and > 0, found \(1\.0, 0\.0\)"),
        ((1.0, -1.0), "shares must be finite and > 0"),
        ((1.0, math.inf), "shares must be finite and > 0"),
        ((1.0, math.nan), "shares must be finite and > 0"),
    ],
)
def test_refuses_shares(shares: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sequence((Linear(), Rex()), shares)


def test_a_sequence_needs_a_piece() -> None:
    with pytest.raises(ValueError, match="pieces must hold at least one schedule, found none"):
        Sequence(())


@pytest.mark.parametrize(
    "schedule",
    [
        Product((Rex(), Cosine())),
        Product((Sequence((Linear(), Rex())), Warmup())),
        Sequence((Linear(), Sampled(Cosine(), 5), Product((Rex(), Constant(0.5)))), (0.1, 0.2, 0.7)),
        Sequence((Linear(),) * 7),
    ],
)
def test_holds_the_contract(schedule: Product | Sequence) -> None:
    check_schedule(schedule)
