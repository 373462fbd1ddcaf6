"""The toy policy: its law, its books, and the ordering of curricula that it is known for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.repairs import Easier, Refill, Replay
from outlay.rng import numpy_generator
from outlay.teachers import Uniform
from outlay.teachers.base import Asking, Stateless, drawn, even, softmax
from outlay.testing.toy_policy import ToyLaw, ToyReplay, ToyResult, run_toy

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class ByProgress:
    """A level after another, each for the same share of the budget."""

    hardest_first: bool = False

    def open(self, arms: Sequence[Arm], context: Context) -> Progressing:
        return Progressing(len(arms), self.hardest_first)


@dataclass
class Progressing(Stateless):
    arms: int
    hardest_first: bool

    def shares(self, asking: Asking) -> FloatArray:
        at = min(int(asking.progress * self.arms), self.arms - 1)
        return np.eye(self.arms)[self.arms - 1 - at if self.hardest_first else at]

    def choose(self, asking: Asking) -> IntArray:
        return drawn(self.shares(asking), asking)


@dataclass(frozen=True)
class Bandit:
    """Softmax over an average of |A|, and over an upper bound of it: written out again here, so that the toy is checked and not the catalog."""

    upper: bool = False

    def open(self, arms: Sequence[Arm], context: Context) -> Pulling:
        return Pulling(len(arms), self.upper)


@dataclass
class Pulling:
    arms: int
    upper: bool
    values: FloatArray = field(init=False)
    counts: FloatArray = field(init=False)
    windows: list[list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.values, self.counts, self.windows = np.zeros(self.arms), np.zeros(self.arms), [[] for _ in range(self.arms)]

    def shares(self, asking: Asking) -> FloatArray:
        if not self.upper:
            return softmax(self.values, 0.2)
        means = np.array([np.mean(window) if window else 0.0 for window in self.windows])
        return softmax(means + np.sqrt(2 * np.log(self.counts.sum() + 1) / (self.counts + 1)), 0.1)

    def choose(self, asking: Asking) -> IntArray:
        return drawn(self.shares(asking), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        for arm in set(chosen.tolist()):
            mine = [abs(value) for one in outcomes if one.arm == arm for value in one.advantages]
            self.values[arm] = 0.5 * np.mean(mine) + 0.5 * self.values[arm]
            self.windows[arm] = (self.windows[arm] + mine)[-300:]
            self.counts[arm] += len(mine)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Counting:
    """Uniform lessons that keep what they were told."""

    told: list[Sequence[Outcome]] = field(default_factory=list)

    def open(self, arms: Sequence[Arm], context: Context) -> Listening:
        return Listening(len(arms), self.told)


@dataclass
class Listening(Stateless):
    arms: int
    told: list[Sequence[Outcome]]

    def shares(self, asking: Asking) -> FloatArray:
        return even(self.arms)

    def choose(self, asking: Asking) -> IntArray:
        return drawn(even(self.arms), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        assert [one.arm for one in outcomes] == chosen.tolist()
        self.told.append(outcomes)


def mean_area(results: Sequence[ToyResult]) -> float:
    return sum(one.area for one in results) / len(results)


def test_uniform_is_the_known_number() -> None:
    results = [run_toy(Uniform(), seed=seed) for seed in SEEDS]
    assert mean_area(results) == pytest.approx(0.623, abs=0.02)
    assert all(one.updates == 100 and one.trained == 25_600 for one in results)


def test_the_known_ordering() -> None:
    uniform = mean_area([run_toy(Uniform(), seed=seed, over="categories") for seed in SEEDS])
    bandit = mean_area([run_toy(Bandit(), seed=seed, over="categories") for seed in SEEDS])
    upper = mean_area([run_toy(Bandit(upper=True), seed=seed, over="categories") for seed in SEEDS])
    easy = mean_area([run_toy(ByProgress(), seed=seed, over="categories") for seed in SEEDS])
    hard = mean_area([run_toy(ByProgress(hardest_first=True), seed=seed, over="categories") for seed in SEEDS])
    assert bandit == pytest.approx(0.715, abs=0.03)
    assert upper == pytest.approx(0.743, abs=0.03)
    assert easy == pytest.approx(0.582, abs=0.03)
    assert hard == pytest.approx(0.294, abs=0.03)
    assert min(bandit, upper) > uniform > easy > hard


def test_law() -> None:
    pool = ToyLaw(prompts=7, levels=3, noises=1).draw(numpy_generator(0, "law"))
    assert pool.levels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert pool.features[:3, :3].tolist() == [[1, 0, 0], [0.7, 1, 0], [0, 0.7, 1]]
    weights = np.array([1.0, 2.0, 3.0, 0.5])
    expected = 1 / (1 + math.exp(pool.difficulties[1] - (0.7 + 2.0 + 0.5 * pool.features[1, 3])))
    assert pool.success(weights)[1] == pytest.approx(expected)
    large = ToyLaw(prompts=50_000).draw(numpy_generator(0, "law"))
    hardest = large.levels == 4
    assert large.difficulties[hardest].mean() == pytest.approx(1 + 2.2 * 4, abs=0.02)
    assert large.difficulties[hardest].std() == pytest.approx(0.6, abs=0.02)
    assert large.features[:, 5:].std() == pytest.approx(0.3, abs=0.01)


def test_arms() -> None:
    pool = ToyLaw(prompts=11).draw(numpy_generator(0, "law"))
    levels = pool.arms("categories")
    assert [arm.size for arm in levels] == [3, 2, 2, 2, 2]
    assert [arm.difficulty for arm in levels] == [0, 1, 2, 3, 4]
    prompts = pool.arms("prompts")
    assert len({arm.name for arm in prompts}) == 11
    assert [arm.category for arm in prompts[:2]] == ["level/0", "level/1"]
    assert sorted(arm.point[0] for arm in prompts)[:: len(prompts) - 1] == [0, 1]


@pytest.mark.parametrize("objective", ["grpo", "remax"])
@pytest.mark.parametrize("repair", [None, Refill(), Refill(0.25, 0.75, rounds=10)])
@pytest.mark.parametrize("rollouts", [2000, 2049])
def test_every_run_spends_the_same_to_the_unit(objective: Any, repair: Any, rollouts: int) -> None:
    result = run_toy(Uniform(), repair=repair, objective=objective, rollouts=rollouts)
    assert result.spent[0] == 0
    assert result.spent[-1] == rollouts
    assert np.all(np.diff(result.spent) > 0)
    assert result.shares.sum() == pytest.approx(1)


def test_greedy_rollouts_are_charged() -> None:
    result = run_toy(Uniform(), objective="remax", rollouts=32 * 9 * 3)
    assert result.updates == 3
    assert result.trained == 32 * 8 * 3


def test_thrown_away_rollouts_are_charged_and_told() -> None:
    teacher = Counting()
    result = run_toy(teacher, repair=Refill(rounds=10), over="categories", rollouts=5120)
    told = [one for batch in teacher.told for one in batch]
    assert sum(len(one.rewards) for one in told) == 5120
    kept = sum(len(one.rewards) for one in told if 0 < one.rate < 1)
    assert 0 < result.trained <= kept < 5120
    assert result.updates < 20


def test_easier_questions_take_the_place_of_failed_ones() -> None:
    plain, eased = (run_toy(Uniform(), repair=repair, rollouts=6400) for repair in (None, Easier()))
    assert eased.spent[-1] == 6400
    assert eased.updates < plain.updates == 25
    assert eased.shares[3] > 1.2 * plain.shares[3] > 1.2 * eased.shares[4]


def test_replay_is_known_to_be_the_strongest() -> None:
    results = [run_toy(Uniform(), repair=Replay(), seed=seed) for seed in SEEDS]
    assert mean_area(results) == pytest.approx(0.922, abs=0.03)
    assert all(one.trained == 25_600 for one in results)


def test_replay_draws_as_the_catalog_does() -> None:
    ours, theirs = ToyReplay(0.5, 12), Replay(0.5, 12).open(Context(0))
    for step in range(6):
        rng = numpy_generator(0, "rows", step)
        rows = np.stack([rng.integers(600, size=16), rng.integers(2, size=16), rng.normal(size=16), rng.random(16)], 1)
        rows[rng.random(16) < (1.0 if step == 0 else 0.6), 2] = 0.0
        batch = {
            "input_ids": torch.from_numpy(np.stack([rows[:, 0] + 3, rows[:, 1] + 1], 1)).long(),
            "attention_mask": torch.ones(16, 2, dtype=torch.long),
            "labels": torch.from_numpy(np.stack([np.full(16, -100), rows[:, 1] + 1], 1)).long(),
            "group": torch.arange(16),
            "advantage": torch.from_numpy(np.stack([np.zeros(16), rows[:, 2]], 1)),
            "behaviour": torch.from_numpy(np.stack([np.zeros(16), rows[:, 3]], 1)),
        }
        found = theirs.replay(batch, 0, numpy_generator(1, "replay", step))
        expected = ours.replay(rows, numpy_generator(1, "replay", step))
        columns = [found["input_ids"][:, 0] - 3, found["labels"][:, 1] - 1, found["advantage"][:, 1], found["behaviour"][:, 1]]
        assert np.array_equal(expected, np.stack([column.numpy() for column in columns], 1))


def test_advantages() -> None:
    teacher = Counting()
    run_toy(teacher, over="categories", rollouts=256)
    for one in teacher.told[0]:
        rewards = np.array(one.rewards)
        spread = rewards.std()
        expected = (rewards - rewards.mean()) / spread if spread else np.zeros(8)
        assert one.advantages == pytest.approx(expected)
    teacher = Counting()
    run_toy(teacher, over="categories", objective="remax", rollouts=288)
    # nothing has been learnt: hardly any prompt is answered rightly by the likelier answer
    assert {value for one in teacher.told[0] for value in one.advantages} <= {-1.0, 0.0, 1.0}
    assert any(one.advantages == one.rewards for one in teacher.told[0])


def test_update_is_the_mean_over_all_rollouts() -> None:
    law = ToyLaw(prompts=1, levels=1, noises=0, easiest=0.0, spread=0.0)
    teacher = Counting()
    result = run_toy(teacher, law=law, batch=1, rollouts=9, lr=2.0)
    (one,) = teacher.told[0]
    # with p = 1/2 at first, (r - p) is +-1/2, and the one feature is 1
    expected = 2.0 * sum(a * (r - 0.5) for a, r in zip(one.advantages, one.rewards, strict=True)) / 8
    assert result.weights.tolist() == pytest.approx([expected])
    assert result.norm == pytest.approx(abs(expected))
    twice = run_toy(Counting(), law=law, batch=1, rollouts=9, lr=4.0)
    assert twice.weights.tolist() == pytest.approx([2 * expected])
    short = run_toy(Counting(), law=law, batch=1, rollouts=9, lr=4.0, limit=0.01)
    assert short.weights.tolist() == pytest.approx([0.01])


def test_limit_and_pull() -> None:
    free = run_toy(Uniform(), lr=16.0)
    bound = run_toy(Uniform(), lr=16.0, limit=0.2)
    assert bound.norm <= 0.2 < free.norm
    assert bound.area < free.area
    assert np.linalg.norm(run_toy(Uniform(), lr=16.0, pull=3e-3).weights) < np.linalg.norm(free.weights)


def test_learning_is_measured_on_other_prompts_of_the_same_seed() -> None:
    first, second = run_toy(Uniform(), rollouts=512), run_toy(Uniform(), rollouts=512, lr=8.0)
    assert first.success[0] == second.success[0]
    assert first.success[0] != run_toy(Uniform(), rollouts=512, seed=1).success[0]
    assert first.hard[0] < first.success[0] < 0.1


def test_equal_runs_are_equal() -> None:
    one, two = (run_toy(Uniform(), rollouts=2560, seed=3) for _ in range(2))
    assert np.array_equal(one.success, two.success)
    assert np.array_equal(one.weights, two.weights)


def test_area_and_time_to_a_target() -> None:
    spent, success = np.array([0.0, 1.0, 4.0]), np.array([0.0, 0.5, 1.0])
    result = ToyResult(spent, success, success / 2, 0.1, 0.5, 4, np.ones(1), np.zeros(1))
    assert result.area == pytest.approx((0.25 * 1 + 0.75 * 3) / 4)
    assert (result.final, result.final_hard, result.updates) == (1.0, 0.5, 2)
    assert (result.reached(0.5), result.reached(0.6), result.reached(1.1)) == (1.0, 4.0, math.inf)


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"limit": 0.0}, {"pull": -1.0}, {"batch": 0}, {"samples": 0}, {"rollouts": 8}])
def test_wrong_numbers_are_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError):
        run_toy(Uniform(), **wrong)


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"prompts": 4}, {"noises": -1}, {"noise": -1.0}, {"spread": -1.0}])
def test_wrong_laws_are_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError):
        ToyLaw(**wrong)
