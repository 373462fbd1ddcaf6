"""The mixing agent: its state and its mixtures by hand, its file, its losses, and a small world in which it beats even shares."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.teachers import Asking, MixingAgent
from outlay.teachers.base import Examined
from outlay.teachers.mixing_agent import Agent, Visit, state_of, state_width
from outlay.teachers.mixing_training import Trajectory, Transitions, balance, critic_loss, targets_of, train_agent, transitions_of
from outlay.testing import check_teacher
from outlay.testing.field_curves import FieldCurves, Policy, leaning, still, wandering

STEPS = 20


def made(arms: int = 2, history: int = 2, seed: int = 0) -> Agent:
    rng, width = numpy_generator(seed, "test/agent"), state_width(arms, history)
    return Agent([(rng.normal(size=(5, width)), rng.normal(size=5)), (rng.normal(size=(arms, 5)), rng.normal(size=arms))], history)


def asking(arms: int = 2) -> Asking:
    return Asking(50, 0.5, np.full(arms, np.nan), np.zeros(arms), numpy_generator(0, "test"))


# ---- state and action ---------------------------------------------------------------------------------------------------------------


def test_a_state_by_hand() -> None:
    visits = [Visit((0.0, 0.0), (9.0, 8.0)), Visit((0.3, 0.7), (5.0, 4.0)), Visit((0.6, 0.4), (3.0, 2.0))]
    assert state_of(visits, 0.5, 2).tolist() == [0.5, 1.0, 0.6, 0.4, 3.0, 2.0, 1.0, 0.3, 0.7, 5.0, 4.0]
    assert state_of(visits[:1], 0.0, 2).tolist() == [0.0, 1.0, 0.0, 0.0, 9.0, 8.0, *[0.0] * 5]


def test_a_mixture_is_the_softmax_of_the_network() -> None:
    agent = made()
    state = numpy_generator(0, "test/state").normal(size=state_width(2, 2))
    (inner, bias), (outer, shift) = agent.layers
    logits = outer @ np.tanh(inner @ state + bias) + shift
    expected = np.exp(logits) / np.exp(logits).sum()
    assert agent.act(state) == pytest.approx(expected)
    assert made(arms=1, history=1).act(np.array([0.1, 1.0, 1.0, 5.0])).tolist() == [1.0]
    far = agent.act(state * 1e6)
    assert (far >= 0).all() and far.sum() == pytest.approx(1)


def test_lessons_act_on_what_evaluations_measured() -> None:
    agent = made()
    lessons = MixingAgent(agent).open([Arm("a"), Arm("b")], Context(seed=0))
    assert isinstance(lessons, Examined)
    assert lessons.shares(asking()).tolist() == [0.5, 0.5]
    lessons.examined(np.array([np.nan, np.nan]), 0.1)
    assert lessons.shares(asking()).tolist() == [0.5, 0.5]
    lessons.examined(np.array([2.0, np.nan]), 0.2)  # b counts as the mean of what is known
    first = agent.act(state_of([Visit((0.5, 0.5), (2.0, 2.0))], 0.2, 2))
    assert lessons.shares(asking()).tolist() == first.tolist()
    lessons.examined(np.array([np.nan, 0.7]), 0.4)
    second = agent.act(state_of([Visit((0.5, 0.5), (2.0, 2.0)), Visit(tuple(first), (2.0, 0.7))], 0.4, 2))
    assert lessons.shares(asking()).tolist() == second.tolist()
    again = MixingAgent(agent).open([Arm("a"), Arm("b")], Context(seed=0))
    again.load_state_dict(json.loads(json.dumps(lessons.state_dict())))
    for each in (lessons, again):
        each.examined(np.array([1.0, np.nan]), 0.6)
    assert again.shares(asking()).tolist() == lessons.shares(asking()).tolist() != second.tolist()


def test_an_agent_is_a_file(tmp_path: Path) -> None:
    made(history=3).save(tmp_path / "agent.safetensors")
    again = Agent.load(tmp_path / "agent.safetensors")
    state = numpy_generator(0, "test/state").normal(size=state_width(2, 3))
    assert (again.arms, again.history) == (2, 3) and again.act(state).tolist() == made(history=3).act(state).tolist()


def test_contract(tmp_path: Path) -> None:
    made(arms=6, history=2).save(tmp_path / "agent.safetensors")
    check_teacher(MixingAgent(tmp_path / "agent.safetensors"))


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        MixingAgent(tmp_path / "none").open([Arm("a")], Context(seed=0))
    (tmp_path / "torn").write_bytes(b"torn")
    with pytest.raises(InputError, match="no safetensors file"):
        Agent.load(tmp_path / "torn")
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(2)}, tmp_path / "other")
    with pytest.raises(InputError, match="holds no mixing agent"):
        Agent.load(tmp_path / "other")
    with pytest.raises(InputError, match="divides between 2 domains and there are 3"):
        MixingAgent(made()).open([Arm(name) for name in "abc"], Context(seed=0))
    with pytest.raises(ValueError, match="no input of width"):
        Agent(made(history=2).layers, 3)
    for fields in ({"alpha": -1.0}, {"gamma": 1.5}, {"imitated": 0.0}, {"history": 0}, {"mean": 2.0}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            train_agent([FieldCurves((1.0,), (1.0,), (0.0,), (0.0,)).run(still([1.0]), 2)], **fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one trajectory"):
        train_agent([])


# ---- learning -----------------------------------------------------------------------------------------------------------------------


def test_transitions_and_rewards_by_hand() -> None:
    one = Trajectory(np.array([[0.2, 0.8], [0.9, 0.1]]), np.array([[1.0, 3.0], [1.5, 2.0], [1.2, 2.1]]))
    found = transitions_of([one], 1)
    assert found.states.numpy() == pytest.approx(np.array([[0, 1, 0, 0, 1, 3], [0.5, 1, 0.2, 0.8, 1.5, 2.0]]))
    assert found.following.numpy() == pytest.approx(np.array([[0.5, 1, 0.2, 0.8, 1.5, 2.0], [1, 1, 0.9, 0.1, 1.2, 2.1]]))
    assert found.actions.numpy() == pytest.approx(one.mixtures) and found.ended.tolist() == [0.0, 1.0]
    assert found.rewards.tolist() == pytest.approx([1.0, -0.1])
    assert balance(one.losses, 0.5).tolist() == pytest.approx([-(3 + 2) / 2, -(2 + 1.75) / 2, -(2.1 + 1.65) / 2])


def critic(states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    return states[:, 0] + 3 * actions[:, 0]


STEP = Transitions(
    torch.tensor([[1.0], [2.0]]),
    torch.tensor([[0.5, 0.5], [1.0, 0.0]]),
    torch.tensor([0.1, 0.2]),
    torch.tensor([[3.0], [4.0]]),
    torch.tensor([0.0, 1.0]),
)


def test_targets_and_losses_by_hand() -> None:
    targets = targets_of(critic, lambda states: torch.tensor([[0.2, 0.8], [0.3, 0.7]]), STEP, 0.9)
    assert targets.tolist() == pytest.approx([0.1 + 0.9 * (3 + 0.6), 0.2])
    others = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.1, 0.9], [0.2, 0.8]]])
    plain = critic_loss(critic, STEP, targets, others, 0.0)
    error = ((1 + 1.5 - 3.34) ** 2 + (2 + 3 - 0.2) ** 2) / 2
    assert float(plain) == pytest.approx(error)
    gap = (math.log((math.exp(1) + math.exp(4)) / 2) - 2.5 + math.log((math.exp(2.3) + math.exp(2.6)) / 2) - 5) / 2
    assert float(critic_loss(critic, STEP, targets, others, 0.7)) == pytest.approx(error + 0.7 * gap, rel=1e-5)


def trajectories(count: int = 60, seed: int = 0) -> list[Trajectory]:
    """Runs on random curves: two in three of random mixtures, the others of a rule of thumb."""
    found = []
    for number in range(count):
        rng = numpy_generator(seed, "test/curves", number)
        found.append(FieldCurves.drawn(rng).run((wandering if number % 3 else leaning)(rng), STEPS))
    return found


def test_the_curves_by_hand() -> None:
    curves = FieldCurves((2.0, 4.0), (1.0, 0.5), (8.0, 0.0), (0.1, 0.5))
    one = curves.run(still([0.25, 0.75]), 2)
    read = [np.array([8.0, 0.0])]
    for _ in range(2):
        read.append(read[-1] * (1 - np.array([0.1 * 0.75, 0.5 * 0.25])) + np.array([0.25, 0.75]))
    expected = [[1 / (1 + a / 2), (1 + b / 4) ** -0.5] for a, b in read]
    assert one.losses == pytest.approx(np.array(expected)) and one.mixtures.tolist() == [[0.25, 0.75]] * 2


def test_conservatism_lowers_the_value_of_what_was_not_tried() -> None:
    streams = [numpy_generator(0, "test/narrow", number) for number in range(12)]
    runs = [FieldCurves.drawn(rng).run(still([share := rng.uniform(0.6, 0.9), 1 - share]), STEPS) for rng in streams]
    seen = transitions_of(runs, 4)
    unseen = torch.tensor([[0.1, 0.9]]).expand(len(seen.rewards), 2)
    gaps = []
    for alpha in (0.0, 1.0):
        _, value = train_agent(runs, alpha=alpha, warm_up=0, steps=150)
        with torch.no_grad():
            gaps.append(float((value(seen.states, unseen) - value(seen.states, seen.actions)).mean()))
    assert gaps[1] < gaps[0] - 0.1 and gaps[1] < 0


def follows(agent: Agent) -> Policy:
    def policy(losses: Any, mixtures: Any, progress: float) -> Any:
        return agent.act(state_of(Trajectory(mixtures, losses).visits(len(mixtures)), progress, agent.history))

    return policy


def worst(policy: Policy, curves: list[FieldCurves]) -> np.ndarray:
    """Minus the larger loss at the end, on each world."""
    return np.array([float(balance(one.run(policy, STEPS).losses[-1])) for one in curves])


@pytest.mark.parametrize("seed", [0, 1])
def test_it_beats_even_and_every_fixed_shares_on_curves_it_has_not_seen(seed: int) -> None:
    elsewhere = [FieldCurves.drawn(numpy_generator(99, "test/unseen", number)) for number in range(40)]
    agent, _ = train_agent(trajectories(seed=seed), seed=seed)
    ours = worst(follows(agent), elsewhere)
    fixed = [worst(still([share, 1 - share]), elsewhere).mean() for share in np.linspace(0, 1, 21)]
    assert ours.mean() > max(fixed) + 0.02
    assert (ours > worst(still([0.5, 0.5]), elsewhere)).mean() > 0.6


def test_training_repeats_to_the_bit() -> None:
    one, two = (train_agent(trajectories(6), warm_up=5, steps=5)[0] for _ in range(2))
    assert all(np.array_equal(a, b) for x, y in zip(one.layers, two.layers, strict=True) for a, b in zip(x, y, strict=True))
    other, _ = train_agent(trajectories(6), warm_up=5, steps=5, seed=1)
    assert not np.array_equal(one.layers[0][0], other.layers[0][0])
