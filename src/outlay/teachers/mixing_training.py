"""Training of data mixing agents: good trajectories are imitated, then conservative Q-learning on all of them, without another run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from outlay.arms import FloatArray
from outlay.rng import numpy_generator, torch_generator
from outlay.schedules.base import require
from outlay.teachers.mixing_agent import Agent, Visit, state_of, state_width

STREAM = "teachers/mixing_agent"
#: state (n, width), action (n, arms) -> value (n,)
Critic = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
#: state (n, width) -> action (n, arms)
Actor = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Trajectory:
    """A run of a proxy.

    Args:
        mixtures: the shares of each step, (steps, arms), each row summing to 1.
        losses: of every domain before the first step and after each, (steps + 1, arms).
    """

    mixtures: FloatArray
    losses: FloatArray

    def visits(self, step: int) -> list[Visit]:
        """Return the evaluations up to the one before step ``step``, from 0."""
        before = [np.zeros(self.losses.shape[1]), *self.mixtures[:step]]
        return [Visit(tuple(mixture), tuple(losses)) for mixture, losses in zip(before, self.losses[: step + 1].tolist(), strict=True)]


@dataclass(frozen=True)
class Transitions:
    """Steps of trajectories: states (n, width), actions (n, arms), rewards (n,), the next states, and 1 where a trajectory ended (n,)."""

    states: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    following: torch.Tensor
    ended: torch.Tensor

    def at(self, rows: torch.Tensor) -> Transitions:
        """Return some of them."""
        return Transitions(self.states[rows], self.actions[rows], self.rewards[rows], self.following[rows], self.ended[rows])


def balance(losses: FloatArray, mean: float = 0.0) -> FloatArray:
    """Return what a run is after, from losses (..., arms): (1 - mean) min_j(-L_j) + mean mean_j(-L_j), so that no domain is given up for another."""
    return np.asarray((1 - mean) * (-losses).min(-1) + mean * (-losses).mean(-1), np.float64)


class Network:
    """Layers with tanh between, drawn from a generator.

    Args:
        sizes: inputs, hidden units of each layer, outputs.
        generator: of the weights, which are normal with variance 1 / inputs; the last layer's are a tenth of that.
    """

    def __init__(self, sizes: Sequence[int], generator: torch.Generator) -> None:
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        for place, (inputs, outputs) in enumerate(pairwise(sizes)):
            scale = (0.1 if place == len(sizes) - 2 else 1.0) / math.sqrt(inputs)
            weights = (scale * torch.randn(outputs, inputs, generator=generator)).requires_grad_()
            self.layers.append((weights, torch.zeros(outputs, requires_grad=True)))

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the last layer's outputs, (n, outputs)."""
        value = inputs
        for place, (weights, biases) in enumerate(self.layers):
            value = torch.nn.functional.linear(torch.tanh(value) if place else value, weights, biases)
        return value

    def parameters(self) -> list[torch.Tensor]:
        """Return weights and biases."""
        return [part for layer in self.layers for part in layer]


def targets_of(critic: Critic, actor: Actor, steps: Transitions, gamma: float) -> torch.Tensor:
    """Return the Q-learning targets r + gamma (1 - ended) Q(s', actor(s')), (n,), without gradient."""
    with torch.no_grad():
        return steps.rewards + gamma * (1 - steps.ended) * critic(steps.following, actor(steps.following))


def critic_loss(critic: Critic, steps: Transitions, targets: torch.Tensor, others: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return mean (Q(s, a) - target)^2 + alpha mean(log mean_k exp Q(s, a_k) - Q(s, a)).

    The second term lowers Q on actions that the trajectories did not take. With alpha = 0 it is plain Q-learning's loss.

    Args:
        critic: Q.
        steps: what was done.
        targets: (n,), held fixed.
        others: actions a_k to compare with, (n, candidates, arms).
        alpha: weight of the conservatism, >= 0.
    """
    done = critic(steps.states, steps.actions)
    error = (done - targets).square().mean()
    if alpha == 0:
        return error
    count, candidates = others.shape[:2]
    states = steps.states[:, None].expand(count, candidates, -1).reshape(count * candidates, -1)
    values = critic(states, others.reshape(count * candidates, -1)).view(count, candidates)
    return error + alpha * (values.logsumexp(1) - math.log(candidates) - done).mean()


def transitions_of(trajectories: Sequence[Trajectory], history: int, mean: float = 0.0) -> Transitions:
    """Return all steps of the trajectories; a step's reward is how much the balance rose in it."""
    states, following, actions, rewards, ended = [], [], [], [], []
    for one in trajectories:
        steps = len(one.mixtures)
        seen = [state_of(one.visits(step), step / steps, history) for step in range(steps + 1)]
        states += seen[:-1]
        following += seen[1:]
        actions += list(one.mixtures)
        rewards += np.diff(balance(one.losses, mean)).tolist()
        ended += [0.0] * (steps - 1) + [1.0]
    parts = (np.array(states), np.array(actions), np.array(rewards), np.array(following), np.array(ended))
    made = [torch.tensor(part, dtype=torch.float32) for part in parts]
    return Transitions(*made)


def train_agent(
    trajectories: Sequence[Trajectory],
    *,
    history: int = 4,
    hidden: Sequence[int] = (32, 32),
    alpha: float = 0.1,
    gamma: float = 0.95,
    mean: float = 0.0,
    imitated: float = 0.25,
    warm_up: int = 300,
    steps: int = 600,
    batch: int = 128,
    candidates: int = 8,
    lr: float = 1e-3,
    seed: int = 0,
) -> tuple[Agent, Critic]:
    """Return an agent that has learnt from trajectories alone, and its critic.

    First the actor imitates the best trajectories: least cross entropy of their mixtures. Then in each step the critic follows ``critic_loss``,
    compared with random mixtures and the actor's own, and the actor climbs Q(s, actor(s)). Targets come from a copy of the critic that
    trails it, moving a hundredth of the way in each step. Rewards are divided by their deviation over the trajectories.

    Args:
        trajectories: runs of the proxy, at least one, all on the same domains.
        history: evaluations that a state holds, >= 1.
        hidden: units of each hidden layer, of actor and critic alike.
        alpha: weight of the conservatism, >= 0.
        gamma: discount, in [0, 1].
        mean: share of the domains' mean in the balance that is rewarded, in [0, 1]; the rest is the worst domain.
        imitated: share of trajectories that are imitated, those with the highest gain of balance, in (0, 1].
        warm_up: steps of imitation, >= 0.
        steps: steps of Q-learning, >= 0.
        batch: transitions a step, > 0.
        candidates: random mixtures that an action is compared with, > 0.
        lr: Adam's learning rate, > 0.
        seed: root of the random streams.
    """
    require(len(trajectories) > 0, "an agent learns from one trajectory at least, found none")
    counts = (history, batch, candidates)
    require(min(counts) > 0, f"history, batch and candidates must be > 0, found {counts}")
    require(alpha >= 0 and 0 <= gamma <= 1, f"alpha must be >= 0 and gamma in [0, 1], found {alpha} and {gamma}")
    require(0 <= mean <= 1 and 0 < imitated <= 1, f"mean must lie in [0, 1] and imitated in (0, 1], found {mean} and {imitated}")
    arms = trajectories[0].losses.shape[1]
    generator, width = torch_generator(seed, STREAM), state_width(arms, history)
    logits = Network([width, *hidden, arms], generator)
    online, trailing = (Network([width + arms, *hidden, 1], torch_generator(seed, f"{STREAM}/critic")) for _ in range(2))

    def actor(states: torch.Tensor) -> torch.Tensor:
        return logits(states).softmax(-1)

    def critic(states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return online(torch.cat([states, actions], 1)).squeeze(1)

    def slow(states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return trailing(torch.cat([states, actions], 1)).squeeze(1)

    of_actor, of_critic = torch.optim.Adam(logits.parameters(), lr=lr), torch.optim.Adam(online.parameters(), lr=lr)
    good = transitions_of(_best(trajectories, imitated, mean), history, mean)
    for number in range(warm_up):
        some = good.at(_rows(len(good.rewards), batch, seed, "imitation", number))
        _step(of_actor, -(some.actions * logits(some.states).log_softmax(-1)).sum(1).mean())
    everything = transitions_of(trajectories, history, mean)
    spread = float(everything.rewards.std(correction=0)) or 1.0
    for number in range(steps):
        some = everything.at(_rows(len(everything.rewards), batch, seed, "learning", number))
        some = Transitions(some.states, some.actions, some.rewards / spread, some.following, some.ended)
        drawn = numpy_generator(seed, f"{STREAM}/candidates", number).dirichlet(np.ones(arms), (len(some.rewards), candidates))
        others = torch.cat([torch.tensor(drawn, dtype=torch.float32), actor(some.states).detach()[:, None]], 1)
        _step(of_critic, critic_loss(critic, some, targets_of(slow, actor, some, gamma), others, alpha))
        _step(of_actor, -critic(some.states, actor(some.states)).mean())
        with torch.no_grad():
            for behind, ahead in zip(trailing.parameters(), online.parameters(), strict=True):
                behind.lerp_(ahead, 0.01)
    layers = [(weights.detach().double().numpy(), biases.detach().double().numpy()) for weights, biases in logits.layers]
    return Agent(layers, history), critic


def _best(trajectories: Sequence[Trajectory], share: float, mean: float) -> list[Trajectory]:
    gains = [float(np.diff(balance(one.losses[[0, -1]], mean))[0]) for one in trajectories]
    order = sorted(range(len(gains)), key=lambda i: (-gains[i], i))
    return [trajectories[i] for i in order[: max(1, round(share * len(order)))]]


def _rows(count: int, batch: int, seed: int, name: str, number: int) -> torch.Tensor:
    return torch.from_numpy(numpy_generator(seed, f"{STREAM}/{name}", number).integers(count, size=min(batch, count)))


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
