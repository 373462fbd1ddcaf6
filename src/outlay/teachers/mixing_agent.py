"""Data mixing agent: a small network, trained beforehand on trajectories of a proxy, that divides what comes next between domains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome, plain
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.schedules.base import require
from outlay.teachers.base import Asking, drawn, even, softmax

#: a network's layers: weights (out, in) and biases (out,)
Layers = list[tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class MixingAgent:
    """p = softmax(network(state)), computed anew at every evaluation; the state is the progress and the latest mixtures with the losses that they led
    to. Even shares before the first evaluation.

    The network comes from ``outlay.teachers.mixing_training.train_agent`` and is used as it is: it must have been trained on as many domains, in
    their order, and on losses in the same unit. What an evaluation did not measure keeps its last value, and what none has measured
    counts as the mean of the others. The paper leaves the agent's size, its discount and the weight of its conservatism unknown to us; a small
    network of two hidden layers serves.

    Args:
        agent: the file that ``Agent.save`` wrote, or from Python the agent itself.
    """

    title: ClassVar[str] = "Data mixing agent"
    paper: ClassVar[Paper | None] = Paper("2507.15640", "Data Mixing Agent: Learning to Re-weight Domains for Continual Pre-training", 2025)

    agent: Path | Agent

    def __post_init__(self) -> None:
        if isinstance(self.agent, str):
            object.__setattr__(self, "agent", Path(self.agent))

    def open(self, arms: Sequence[Arm], context: Context) -> MixingLessons:
        """Return lessons that have seen no evaluation.

        Raises:
            InputError: when the file is no agent, or the agent divides between another number of domains.
        """
        agent = self.agent if isinstance(self.agent, Agent) else Agent.load(self.agent)
        if agent.arms != len(arms):
            raise InputError(f"the agent divides between {agent.arms} domains and there are {len(arms)}; train one for as many")
        return MixingLessons(agent, plain(even(agent.arms)))


class Agent:
    """A policy over mixtures: state -> simplex.

    Args:
        layers: weights (out, in) and biases (out,) of each layer; the hidden ones pass through tanh. The last has one output a domain.
        history: evaluations that the state holds, >= 1.
    """

    def __init__(self, layers: Layers, history: int) -> None:
        self.layers = [(np.asarray(weights, np.float64), np.asarray(biases, np.float64)) for weights, biases in layers]
        self.history = history
        self.arms = len(self.layers[-1][1])
        width = self.layers[0][0].shape[1]
        require(
            width == state_width(self.arms, history),
            f"a state of {history} evaluations of {self.arms} domains is no input of width {width}",
        )

    def act(self, state: FloatArray) -> FloatArray:
        """Return the mixture for a state (width,): (arms,), > 0, summing to 1."""
        value = state
        for weights, biases in self.layers[:-1]:
            value = np.tanh(weights @ value + biases)
        weights, biases = self.layers[-1]
        return softmax(weights @ value + biases)

    def save(self, path: Path | str) -> None:
        """Write the agent as a small safetensors file."""
        from safetensors.numpy import save_file

        tensors = {
            f"{i}.{name}": value for i, layer in enumerate(self.layers) for name, value in zip(("weights", "biases"), layer, strict=True)
        }
        save_file(tensors, str(path), {"kind": "mixing_agent", "history": str(self.history)})

    @classmethod
    def load(cls, path: Path | str) -> Agent:
        """Return a saved agent.

        Raises:
            InputError: when there is no such file or it holds no agent.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise InputError(f"there is no file {path} with a mixing agent; relative paths start in {Path.cwd()}")
        try:
            with safe_open(str(path), "numpy") as opened:
                told = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise InputError(f"{path} is no safetensors file: {error}") from error
        if told.get("kind") != "mixing_agent":
            raise InputError(f"{path} holds no mixing agent; write one with Agent.save")
        return cls([(tensors[f"{i}.weights"], tensors[f"{i}.biases"]) for i in range(len(tensors) // 2)], int(told["history"]))


@dataclass(frozen=True)
class Visit:
    """An evaluation: the mixture that led to it, (arms,), 0 where there was none, and the losses that it found, (arms,)."""

    mixture: tuple[float, ...]
    losses: tuple[float, ...]


def state_width(arms: int, history: int) -> int:
    """Return how many numbers a state has."""
    return 1 + history * (1 + 2 * arms)


def state_of(visits: Sequence[Visit], progress: float, history: int) -> FloatArray:
    """Return the state: the progress, then for each of the latest ``history`` visits, the last one first, 1, its mixture and its losses; 0 where
    there were fewer.

    Args:
        visits: the evaluations so far, at least one.
        progress: share of the budget that has been spent, in [0, 1].
        history: how many visits are looked at, >= 1.
    """
    found = np.zeros(state_width(len(visits[-1].losses), history))
    found[0], each = progress, 1 + 2 * len(visits[-1].losses)
    for place, visit in enumerate(reversed(visits[-history:])):
        found[1 + place * each : 1 + (place + 1) * each] = [1.0, *visit.mixture, *visit.losses]
    return found


@dataclass
class MixingLessons:
    """The latest evaluations and the mixture that followed."""

    agent: Agent
    _shares: list[float]
    _visits: list[Visit] = field(default_factory=list)
    _known: list[float | None] = field(default_factory=list)

    def shares(self, asking: Asking) -> FloatArray:
        """Return the mixture."""
        return np.array(self._shares)

    def choose(self, asking: Asking) -> IntArray:
        """Return arms drawn from the mixture."""
        return drawn(np.array(self._shares), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Change nothing: the agent goes by evaluations."""

    def examined(self, losses: FloatArray, progress: float) -> None:
        """Let the agent act on what was measured."""
        before = self._known or [None] * self.agent.arms
        self._known = [float(loss) if math.isfinite(loss) else old for loss, old in zip(losses.tolist(), before, strict=True)]
        measured = [loss for loss in self._known if loss is not None]
        if not measured:
            return
        usual = math.fsum(measured) / len(measured)
        seen = tuple(usual if loss is None else loss for loss in self._known)
        self._visits = [*self._visits, Visit(tuple(self._shares), seen)][-self.agent.history :]
        self._shares = plain(self.agent.act(state_of(self._visits, progress, self.agent.history)))

    def state_dict(self) -> dict[str, Any]:
        """Return mixture and evaluations."""
        visits = [[list(visit.mixture), list(visit.losses)] for visit in self._visits]
        return {"shares": list(self._shares), "visits": visits, "known": list(self._known)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved mixture and evaluations."""
        self._shares, self._known = [float(share) for share in state["shares"]], list(state["known"])
        self._visits = [Visit(tuple(mixture), tuple(losses)) for mixture, losses in state["visits"]]
