"""Constant baselines, and advantages that let good answers alone teach."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.advantages import Advantage, BestOnly, PositiveOnly, Shifted, baseline_for, effective_share
from outlay.testing import check_advantage


def of(advantage: Advantage, rewards: list[float], groups: list[int], judged: list[bool] | None = None) -> list[float]:
    labels = torch.full((len(rewards), 2), 3)
    batch = {"labels": labels, "reward": torch.tensor(rewards), "group": torch.tensor(groups)}
    if judged is not None:
        batch["judged"] = torch.tensor(judged)
    mask = torch.ones(len(rewards), 1, dtype=torch.bool)
    return advantage.advantages(batch, mask, torch.zeros(mask.shape)).squeeze(1).tolist()


def test_the_best_of_each_group_the_first_among_equals() -> None:
    rewards, groups = [0.0, 2.0, 2.0, -1.0, -3.0, 0.0], [0, 0, 0, 1, 1, 2]
    assert of(BestOnly(), rewards, groups) == [0, 1, 0, 1, 0, 1]
    assert of(BestOnly(above=0.0), rewards, groups) == [0, 1, 0, 0, 0, 0]
    assert of(BestOnly(), rewards, groups, [True, False, True, False, True, False]) == [0, 0, 1, 0, 1, 0]
    assert of(PositiveOnly(), rewards, groups) == [0, 1, 1, 0, 0, 0]
    assert of(PositiveOnly(above=-2.0), rewards, groups) == [1, 1, 1, 1, 0, 1]


def test_a_baseline_moves_every_reward() -> None:
    assert of(Shifted(0.25), [1.0, -1.0], [0, 0]) == [0.75, -1.25]


@pytest.mark.parametrize(
    ("share", "baseline", "expected"), [(0.5, 0.0, 0.5), (0.5, 0.8, 0.1), (0.2, 0.0, 0.2), (0.9, -0.5, 0.9 * 1.5 / 1.4)]
)
def test_the_effective_share_by_hand(share: float, baseline: float, expected: float) -> None:
    assert effective_share(share, baseline) == pytest.approx(expected)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_the_baseline_reaches_the_wanted_share(share: float, wanted: float) -> None:
    baseline = baseline_for(share, wanted)
    assert effective_share(share, baseline) == pytest.approx(wanted)
    # which is the good answers' part of all that the advantages weigh
    good, bad = share * (1 - baseline), (1 - share) * (1 + baseline)
    assert good / (good + bad) == pytest.approx(wanted)


def test_the_limits_of_the_baseline() -> None:
    assert effective_share(0.3, -1 + 1e-12) == pytest.approx(1.0)
    assert effective_share(0.3, 1 - 1e-12) == pytest.approx(0.0, abs=1e-9)
    for wrong, message in (
        (lambda: effective_share(1.5, 0.0), "share must lie in"),
        (lambda: effective_share(0.5, 1.0), "baseline must lie in"),
        (lambda: baseline_for(0.0, 0.5), "share must lie in"),
        (lambda: baseline_for(0.5, 1.0), "wanted must lie in"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


@pytest.mark.parametrize("advantage", [BestOnly(), BestOnly(0.5), PositiveOnly(), Shifted(), Shifted(0.3)], ids=str)
def test_contract(advantage: Advantage) -> None:
    check_advantage(advantage)
