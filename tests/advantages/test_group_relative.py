"""Group-relative advantages: the grid of normalisers by hand, its invariances, and where a statistic has one member or none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.advantages import Advantage, Group, LeaveOneOut
from outlay.catalog import make
from outlay.errors import InputError
from outlay.testing import check_advantage

SCOPES = ("none", "batch", "group")


def rows(rewards: list[float], groups: list[int], judged: list[bool] | None = None) -> dict[str, torch.Tensor]:
    """Return rollouts of a two-token answer each."""
    ids = torch.ones(len(rewards), 4, dtype=torch.long)
    labels = ids.clone()
    labels[:, :2] = -100
    batch = {"input_ids": ids, "attention_mask": ids, "labels": labels, "group": torch.tensor(groups)}
    return batch | {"reward": torch.tensor(rewards), "judged": torch.tensor([True] * len(rewards) if judged is None else judged)}


def of(advantage: Advantage, batch: dict[str, torch.Tensor], shaping: torch.Tensor | None = None) -> list[float]:
    """Return the advantage of every answer, after holding that its tokens share it."""
    mask = batch["labels"][:, 1:] != -100
    found = advantage.advantages(batch, mask, torch.zeros(mask.shape) if shaping is None else shaping)
    assert not found[~mask].any()
    assert torch.equal(found[:, 1], found[:, 2])
    return found[:, 1].tolist()


#: seven right answers and a wrong one, in a batch that is half right
SKEWED = rows([1.0] * 7 + [0.0] + [1.0] + [0.0] * 7, [0] * 8 + [1] * 8)


def test_a_nearly_solved_group_by_hand() -> None:
    # unbiased deviation of one 0 among seven 1s: sqrt(8 * 1/8 * 7/8 / 7) = .35355; mean 7/8
    assert of(Group(epsilon=0), SKEWED)[7] == pytest.approx(-0.875 / math.sqrt(0.125), abs=1e-6)
    assert round(of(Group(), SKEWED)[7], 2) == -2.47
    # over the batch, eight of sixteen are right: deviation sqrt(16 / 4 / 15)
    assert of(Group(std="batch", epsilon=0), SKEWED)[7] == pytest.approx(-0.875 / math.sqrt(4 / 15), abs=1e-6)
    assert of(Group(std="batch", unbiased=False, epsilon=0), SKEWED)[7] == pytest.approx(-1.75)
    assert of(Group(std="none"), SKEWED)[7] == pytest.approx(-0.875)


@pytest.mark.parametrize("mean", SCOPES)
@pytest.mark.parametrize("std", SCOPES)
@pytest.mark.parametrize("unbiased", [True, False])
def test_the_whole_grid_against_a_formula_a_line(mean: Any, std: Any, unbiased: bool) -> None:
    rewards, groups = [0.5, 2.0, -1.0, 0.0, 1.5, 4.0, 4.5], [0, 0, 0, 5, 5, 5, 5]
    batch = rows(rewards, groups)
    expected = []
    for reward, group in zip(rewards, groups, strict=True):
        peers = torch.tensor([r for r, g in zip(rewards, groups, strict=True) if g == group])
        everyone = torch.tensor(rewards)
        centre = {"none": 0.0, "batch": everyone.mean(), "group": peers.mean()}[mean]
        spread = {"none": 1.0, "batch": everyone.std(correction=int(unbiased)) + 0.1, "group": peers.std(correction=int(unbiased)) + 0.1}[
            std
        ]
        expected.append(float((reward - centre) / spread))
    assert of(Group(mean, std, unbiased, epsilon=0.1), batch) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.integers(-4, 4), min_size=4, max_size=12), st.floats(0.01, 100), st.floats(-10, 10))
def test_scale_and_offset_of_rewards(values: list[int], scale: float, offset: float) -> None:
    groups = [i // 4 for i in range(len(values))]
    one = rows([float(v) for v in values], groups)
    other = {**one, "reward": (one["reward"].double() * scale + offset)}
    for std in ("batch", "group"):
        # a group of one has no deviation of its own to be scaled by
        alone = std == "group" or len(values) % 4 == 1
        kept = [i for i in range(len(values)) if not alone or groups.count(groups[i]) > 1]
        first, second = (of(Group("group", std, epsilon=0), batch) for batch in (one, other))  # type: ignore[arg-type]
        assert [second[i] for i in kept] == pytest.approx([first[i] for i in kept], abs=1e-4)
    first, second = (of(Group("batch", "none"), batch) for batch in (one, other))
    assert second == pytest.approx([scale * a for a in first], abs=1e-3)


@pytest.mark.parametrize("std", SCOPES)
def test_equal_rewards_have_no_advantage_whatever_rounding_does(std: Any) -> None:
    assert of(Group(std=std), rows([0.1] * 6, [0, 0, 0, 1, 1, 1])) == [0.0] * 6
    assert of(Group(std=std, epsilon=0), rows([0.3] * 6, [0] * 6)) == [0.0] * 6
    # the mean of six tenths in double precision is a little less than a tenth
    tenths = {**rows([0.1] * 6, [0] * 6), "reward": torch.full((6,), 0.1, dtype=torch.float64)}
    assert float(tenths["reward"].sum()) / 6 != 0.1
    assert of(Group(std=std), tenths) == of(Group(std=std, epsilon=0), tenths) == of(Group("batch", std), tenths) == [0.0] * 6


def test_an_answer_that_is_alone_keeps_its_reward() -> None:
    batch = rows([3.0, 1.0, 2.0], [0, 1, 1])
    assert of(Group(std="none"), batch) == [3.0, -0.5, 0.5]
    assert of(Group(epsilon=0), batch)[0] == 3.0  # mean 0, deviation 1
    assert of(Group(epsilon=0.5), batch)[0] == pytest.approx(2.0)
    assert of(Group(std="batch", epsilon=0), batch)[0] == pytest.approx(3.0)  # the batch's deviation is 1


def test_unjudged_answers_enter_nothing() -> None:
    whole = of(Group(), rows([1.0, 9.0, 0.0, 0.0, 1.0], [0, 0, 0, 1, 1], [True, False, True, True, True]))
    without = of(Group(), rows([1.0, 0.0, 0.0, 1.0], [0, 0, 1, 1]))
    assert whole[1] == 0.0
    assert [whole[i] for i in (0, 2, 3, 4)] == without
    assert of(LeaveOneOut(), rows([1.0, 9.0, 0.0], [0, 0, 0], [True, False, True])) == [1.0, 0.0, -1.0]


def test_shaping_of_tokens_counts_with_the_answer() -> None:
    batch = rows([1.0, 0.0], [0, 0])
    shaping = torch.tensor([[9.0, -0.5, -0.25], [9.0, 0.0, 0.0]])  # what lies outside the answer does not count
    assert of(Group(std="none"), batch, shaping) == [0.125, -0.125]
    assert of(LeaveOneOut(), batch, shaping) == [0.25, -0.25]


def test_leave_one_out_by_hand_and_as_a_multiple_of_the_centred_reward() -> None:
    batch = rows([1.0, 0.0, 0.5, 2.0, 7.0], [0, 0, 0, 0, 1])
    assert of(LeaveOneOut(), batch) == pytest.approx([1 - 2.5 / 3, 0 - 3.5 / 3, 0.5 - 1, 2 - 0.5, 7.0])
    centred = of(Group(std="none"), batch)
    assert of(LeaveOneOut(), batch)[:4] == pytest.approx([4 / 3 * a for a in centred[:4]])


def test_group_statistics_are_those_of_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    # TRL: (r - mean) / (std + 1e-4), unbiased; over the group or, scale_rewards="batch", over everything
    rewards = torch.tensor([1.0, 0.0, 0.5, 0.0, 2.0, 2.5])
    view = rewards.view(2, 3)
    centred = (view - view.mean(1, keepdim=True)).flatten()
    batch = rows(rewards.tolist(), [0, 0, 0, 1, 1, 1])
    assert of(Group(epsilon=1e-4), batch) == pytest.approx((centred / (view.std(1).repeat_interleave(3) + 1e-4)).tolist(), abs=1e-6)
    assert of(Group(std="batch", epsilon=1e-4), batch) == pytest.approx((centred / (rewards.std() + 1e-4)).tolist(), abs=1e-6)


@pytest.mark.parametrize("advantage", [Group(a, b, c) for a in SCOPES for b in SCOPES for c in (True, False)] + [LeaveOneOut()], ids=str)  # type: ignore[arg-type]
def test_contract(advantage: Advantage) -> None:
    check_advantage(advantage)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="mean.*accepted: none, batch, group"):
        make("advantages/group", mean="running")
    with pytest.raises(ValueError, match="epsilon must be >= 0, found -1"):
        Group(epsilon=-1)
