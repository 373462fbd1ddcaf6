"""Automatic discount scheduling: its measure of progress, the discount, the proxy reward, and Q-learning in a corridor with a locked door."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from outlay import rng
from outlay.controllers import AutomaticDiscount
from outlay.controllers.discount import cosine_cost, longest_increasing, nearest_expert_steps, transport_rewards
from outlay.record import Record
from outlay.testing import check_controller, record


def saw(*episodes: Any, **fields: Any) -> Record:
    return record(1, detail={"expert_steps": list(episodes)}, **fields)


# ---- the measures --------------------------------------------------------------------------------------------------------------------


def test_the_longest_increasing_subsequence_by_hand() -> None:
    assert longest_increasing([]) == 0
    assert longest_increasing([3, 1, 4, 1, 5, 9, 2, 6]) == 4  # 1 4 5 9
    assert longest_increasing([2, 2, 2]) == 1  # strictly
    assert longest_increasing([5, 4, 3]) == 1
    assert longest_increasing(range(40)) == 40


@given(st.lists(st.integers(0, 6), max_size=9))
def test_the_longest_increasing_subsequence_is_the_best_of_all(steps: list[int]) -> None:
    rising = [
        size
        for size in range(len(steps) + 1)
        for chosen in itertools.combinations(steps, size)
        if all(a < b for a, b in itertools.pairwise(chosen))
    ]
    assert longest_increasing(steps) == max(rising)


def test_nearest_expert_steps_by_hand() -> None:
    expert = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [2.0, 2.0]])
    agent = torch.tensor([[5.0, 0.1], [0.1, 7.0], [3.0, 3.0], [-1.0, 0.2]])
    assert nearest_expert_steps(agent, expert) == [0, 2, 1, 2]
    assert nearest_expert_steps(agent, expert, first=2) == [0, 1, 1, 1]
    cost = cosine_cost(agent, expert)
    assert cost.shape == (4, 4) and float(cost[2, 1]) == pytest.approx(0.0, abs=1e-6)
    assert float(cost[2, 0]) == pytest.approx(1 - math.sqrt(0.5), rel=1e-6)
    assert float(cosine_cost(-expert[:1], expert[:1])) == 2.0 and float(cosine_cost(torch.zeros(1, 2), expert[:1])) == 1.0


def test_an_identical_trajectory_follows_every_step() -> None:
    expert = torch.randn(30, 8, generator=rng.torch_generator(0, "expert"))
    assert longest_increasing(nearest_expert_steps(expert * 3.0, expert)) == 30
    assert longest_increasing(nearest_expert_steps(expert.flip(0), expert)) == 1


def test_the_transport_reward_is_the_cheapest_assignment_when_entropy_is_cheap() -> None:
    cost = torch.rand(6, 6, dtype=torch.float64, generator=rng.torch_generator(2, "cost"))
    rewards = transport_rewards(cost, regularisation=1e-3, iterations=5000)  # no other assignment comes near the cheapest
    rows, columns = linear_sum_assignment(cost.numpy())
    assert rewards.tolist() == pytest.approx((-cost[rows, columns] / 6).tolist(), abs=1e-4)


def test_the_transport_reward_of_dear_entropy_is_the_mean_cost() -> None:
    cost = torch.rand(4, 7, dtype=torch.float64, generator=rng.torch_generator(1, "cost"))
    assert transport_rewards(cost, regularisation=1e6).tolist() == pytest.approx((-cost.mean(dim=1) / 4).tolist(), rel=1e-5)


def test_the_transport_plan_has_its_marginals() -> None:
    """With a cost that is constant along expert steps each agent's step pays its share alone; likewise the other way."""
    own = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)
    assert transport_rewards(own.expand(3, 5)).tolist() == pytest.approx([-0.1 / 3, -0.5 / 3, -0.9 / 3])
    assert float(transport_rewards(own.T.expand(4, 3)).sum()) == pytest.approx(-0.5)


# ---- the controller ------------------------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 0.99), st.integers(1, 5000))
def test_a_reward_k_steps_ahead_always_weighs_alpha(alpha: float, start: int) -> None:
    controller = AutomaticDiscount(alpha, start=start)
    assert controller.value(0.5) ** start == pytest.approx(alpha, rel=1e-9)


def test_looks_further_and_further() -> None:
    values = [AutomaticDiscount(start=k).value(0.0) for k in (1, 2, 10, 1000, 10**9)]
    assert values[0] == 0.2 and values[1] == pytest.approx(math.sqrt(0.2)) and values == sorted(values)
    assert 1 - values[-1] < 1e-8


def test_progress_by_hand() -> None:
    controller = AutomaticDiscount(share=0.6, start=4)
    # needs 2.4 steps in order among the first five
    for episode, expected in (
        ([0, 1], 4),
        ([4, 3, 2, 1, 0], 4),
        ([0, 5, 6, 7], 4),  # what is nearest to later steps is not counted
        ([0, -1, -1, 1], 4),  # padding
        ([0, 9, 0, 2, 1, 3], 5),  # 0 2 3; now 3 are needed
        ([0, 4, 5], 6),  # now 3.6
        ([0, 4, 5], 6),
    ):
        controller.observe(saw(episode))
        assert controller.mastered == expected


def test_each_episode_counts_once_and_in_order() -> None:
    controller = AutomaticDiscount(share=1.0, start=3)
    controller.observe(saw([0, 1, 2], [0, 1, 2], range(9), range(9)))
    assert controller.mastered == 6


@pytest.mark.parametrize("kind", [list, torch.tensor, np.array])
def test_reads_lists_and_tensors(kind: Any) -> None:
    controller = AutomaticDiscount(start=2)
    controller.observe(record(1, detail={"expert_steps": kind([[0, 1, 2, -1], [0, 1, 2, 3]])}))
    assert controller.mastered == 4


def test_ends_with_the_demonstration() -> None:
    controller = AutomaticDiscount(length=5)
    controller.observe(saw(*[range(6)] * 20))
    assert controller.mastered == 5


def test_passes_over_evaluations_and_records_without_episodes() -> None:
    controller = AutomaticDiscount()
    controller.observe(record(1))
    controller.observe(saw([0, 1, 2], kind="evaluation"))
    assert controller.mastered == 1


@given(st.lists(st.lists(st.integers(-1, 8), max_size=12), max_size=20), st.floats(0.1, 1))
def test_never_falls(episodes: list[list[int]], share: float) -> None:
    controller = AutomaticDiscount(share=share, length=8)
    for episode in episodes:
        before = controller.mastered
        controller.observe(saw(episode))
        assert controller.mastered in (before, before + 1) and controller.mastered <= 8


def test_holds_the_contract() -> None:
    records = [saw(list(range(k % 4 + 2)), [2, 1, 0]) for k in range(10)]
    values = check_controller(lambda: AutomaticDiscount(length=20), records)
    assert values[0] == 0.2 and len(set(values)) > 3 and values == sorted(values)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 1.0}, r"alpha must lie in \(0, 1\), found 1.0"),
        ({"share": 0.0}, r"share must lie in \(0, 1\], found 0.0"),
        ({"start": 0}, "start must be >= 1, found 0"),
        ({"length": 2, "start": 3}, "length must be >= start = 3, or None, found 2"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutomaticDiscount(**fields)


def test_functions_refuse() -> None:
    with pytest.raises(ValueError, match="first must be >= 1, or None, found 0"):
        nearest_expert_steps(torch.ones(1, 2), torch.ones(1, 2), first=0)
    with pytest.raises(ValueError, match="regularisation must be finite and > 0, found 0"):
        transport_rewards(torch.ones(1, 2), regularisation=0.0)
    with pytest.raises(ValueError, match="iterations must be >= 1, found 0"):
        transport_rewards(torch.ones(1, 2), iterations=0)


# ---- a corridor with a key and a locked door -----------------------------------------------------------------------------------------

CELLS, START, DOOR = 9, 3, 6
MOVES = (-1, 0, 1)
Place = tuple[int, int]  # cell, and whether the key is held


def moved(place: Place, move: int) -> Place:
    """The key lies in cell 0; without it the door holds."""
    cell = min(CELLS - 1, max(0, place[0] + move))
    cell = place[0] if cell >= DOOR and not place[1] else cell
    return cell, int(place[1] or cell == 0)


def features(places: Sequence[Place]) -> torch.Tensor:
    """A bump at the cell, and the key, of which little is to be seen."""
    at = torch.arange(CELLS, dtype=torch.float64)
    return torch.stack([torch.cat([torch.exp(-((at - cell) ** 2) / 2), torch.tensor([0.3 * key])]) for cell, key in places])


def demonstration() -> list[Place]:
    places: list[Place] = [(START, 0)]
    for move in [-1] * START + [1] * (CELLS - 1):
        places.append(moved(places[-1], move))
    return places


def learn(controller: AutomaticDiscount | None, seed: int, episodes: int) -> bool:
    """Learn by tabular Q-learning on the proxy reward; return whether the greedy policy gets through the door. Without a controller, gamma = 0.99."""
    expert = features(demonstration())
    steps = len(expert) - 1
    values, chance = np.zeros((steps + 1, CELLS, 2, 3)), rng.numpy_generator(seed, "corridor")
    places: list[Place] = []
    for episode in range(episodes + 1):
        places, taken = [(START, 0)], []
        for step in range(steps):
            here = values[(step, *places[-1])]
            exploring = episode < episodes and chance.random() < 0.1
            taken.append(int(chance.integers(3)) if exploring else int(chance.choice(np.flatnonzero(here == here.max()))))
            places.append(moved(places[-1], MOVES[taken[-1]]))
        agent = features(places)
        rewards = (len(places) * transport_rewards(cosine_cost(agent, expert), iterations=20)).tolist()
        gamma = controller.value(0.0) if controller else 0.99
        for step in reversed(range(steps)):
            spot, ahead = (step, *places[step], taken[step]), values[(step + 1, *places[step + 1])].max()
            values[spot] += 0.3 * (rewards[step + 1] + gamma * ahead - values[spot])
        if controller:
            before = controller.mastered
            controller.observe(saw(nearest_expert_steps(agent, expert, first=before + 1)))
            assert before <= controller.mastered <= steps
    return places[-1][0] == CELLS - 1


def test_q_learning_follows_the_demonstration_through_the_door() -> None:
    """One of two seeds at least, and the progress comes to the end. At equal steps a fixed gamma of 0.99 learns this corridor just as well: it
    does not show that the discount needs a schedule, and nothing of the kind is claimed here."""
    expert = demonstration()
    assert len(expert) == 12 and expert[START] == (0, 1) and expert[-1] == (CELLS - 1, 1)
    controllers = {seed: AutomaticDiscount(length=len(expert) - 1) for seed in (1, 2)}
    scheduled = [learn(controller, seed, 400) for seed, controller in controllers.items()]
    fixed = [learn(None, seed, 400) for seed in controllers]
    assert any(scheduled) and any(fixed)
    for controller in controllers.values():
        assert controller.mastered == len(expert) - 1 and controller.value(0.0) == pytest.approx(0.2 ** (1 / 11))
