"""Skill-It: what helps the skills that are still hard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome, plain
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, nearest
from outlay.schedules.base import require
from outlay.teachers.base import Asking, drawn, softmax


@dataclass(frozen=True)
class SkillIt:
    """p_i = softmax_i(eta sum over the last ``window`` evaluations of sum_j A_ij L_j): arm i is worth what it helps, A_ij, times how hard
    that still is, L_j.

    p is computed anew in each round from those losses alone; it is no running product. Before the first evaluation every loss counts as 1.
    Losses come from evaluations of every arm (``evaluations/domain_losses``), so there must be some: set ``evaluate.every``.

    Args:
        graph: A, as rows of numbers, A[i][j] > 0 where training on arm i helps arm j; or arm -> {arm that it helps: weight}, where what is
            left out is 0, and 1 on the diagonal. None for the diagonal alone: every arm helps itself. Negative weights are taken as given.
        eta: how far the shares follow the losses, >= 0; 0 leaves the prior.
        window: evaluations whose losses are summed, >= 1.
        rounds: rounds into which the budget is divided; p is computed anew at the first evaluation in each. None for every evaluation.
        unit_edge: what an entry of exactly 1 beside the diagonal stands for, as in the authors' code; 1 takes it as given.
        clip: cut negative entries of A off at 0.
        targets: names of the arms whose losses count; empty for all. With targets the losses of the window are averaged, else summed.
        prior: arm -> weight > 0 that its exponential is multiplied with; 1 where it is left out.
        growing: divide eta by (sum of the latest losses / sum of the first ones), so that it grows as losses fall.
        relative: divide every loss by the arm's first one.
        halving: halve the entries beside the diagonal with every round.
        even_isolated: arms that neither help others nor are helped get 1 / arms, and the others share what is left.
    """

    title: ClassVar[str] = "Skill-It"
    paper: ClassVar[Paper | None] = Paper(
        "2307.14430", "Skill-it! A Data-Driven Skills Framework for Understanding and Training Language Models", 2023
    )

    graph: tuple[tuple[float, ...], ...] | dict[str, dict[str, float]] | None = None
    eta: float = 0.5
    window: int = 3
    rounds: int | None = None
    unit_edge: float = 0.5
    clip: bool = False
    targets: tuple[str, ...] = ()
    prior: dict[str, float] = field(default_factory=dict)
    growing: bool = False
    relative: bool = False
    halving: bool = False
    even_isolated: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.graph, list | tuple):
            object.__setattr__(self, "graph", tuple(tuple(float(entry) for entry in row) for row in self.graph))
        object.__setattr__(self, "targets", tuple(self.targets))
        require(0 <= self.eta < math.inf, f"eta must be finite and >= 0, found {self.eta}")
        require(self.window >= 1, f"window must be >= 1, found {self.window}")
        require(self.rounds is None or self.rounds >= 1, f"rounds must be >= 1, found {self.rounds}")
        require(math.isfinite(self.unit_edge), f"unit_edge must be finite, found {self.unit_edge}")
        bad = [weight for weight in self.prior.values() if not 0 < weight < math.inf]
        require(not bad, f"prior weights must be finite and > 0, found {bad}")

    def open(self, arms: Sequence[Arm], context: Context) -> SkillItLessons:
        """Return lessons of the first round.

        Raises:
            InputError: when graph, targets or prior do not fit the arms.
        """
        names = [arm.name for arm in arms]
        for what, told in (("targets", self.targets), ("prior", self.prior)):
            for name in told:
                _known(name, names, f"{what} of teachers/skill_it")
        counted = np.array([not self.targets or name in self.targets for name in names])
        prior = np.array([self.prior.get(name, 1.0) for name in names])
        return SkillItLessons(self, _matrix(self, names), counted, prior)


def learn_graph_from_drops(before: FloatArray, after: FloatArray) -> FloatArray:
    """Return the graph that short trials show: A_ij = max(0, (L_j - L_ij) / L_j), (k, m).

    Trial i trains on arm i alone for a few steps from the current model, so all of them together cost k short runs.

    Args:
        before: held-out losses before the trials, (m,), each > 0.
        after: those after each trial, (k, m); row i after training on arm i.

    Raises:
        ValueError: when a loss before is not > 0, or the shapes do not fit.
    """
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    require(before.ndim == 1 and after.ndim == 2 and after.shape[1] == len(before), f"found shapes {before.shape} and {after.shape}")
    require(bool(np.all(before > 0)), f"losses before the trials must be > 0, found {before.tolist()}")
    return np.asarray(np.maximum(0.0, (before - after) / before), np.float64)


@dataclass
class SkillItLessons:
    """The losses of the latest evaluations and the shares that they gave."""

    spec: SkillIt
    graph: FloatArray
    counted: np.ndarray
    prior: FloatArray
    _latest: list[list[float | None]] = field(default_factory=list)
    _first: list[float | None] = field(default_factory=list)
    _round: int = 0
    _updates: int = 0
    _shares: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._first = [None] * len(self.graph)
        self._shares = plain(self._given(np.ones(len(self.graph)), self.spec.eta))

    def shares(self, asking: Asking) -> FloatArray:
        """Return p of this round."""
        return np.array(self._shares)

    def choose(self, asking: Asking) -> IntArray:
        """Return arms drawn from p."""
        return drawn(np.array(self._shares), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Change nothing: losses come from evaluations."""

    def examined(self, losses: FloatArray, progress: float) -> None:
        """Keep the losses, and compute p anew where a round has begun."""
        found = [float(loss) if math.isfinite(loss) else None for loss in losses.tolist()]
        if all(loss is None for loss in found):
            return
        self._latest = [*self._latest, found][-self.spec.window :]
        self._first = [new if old is None else old for old, new in zip(self._first, found, strict=True)]
        # shares of a budget such as 5 / 6 of 6 rounds may fall short in their last bit
        begun = None if self.spec.rounds is None else int(progress * self.spec.rounds + 1e-9)
        if begun is None or begun > self._round:
            self._round = begun or 0
            self._updates += 1
            self._shares = plain(self._given(self._windowed(), self._rate()))

    def _windowed(self) -> FloatArray:
        """Return what the window says of each arm's loss, (arms,); 0 for those that were never measured in it."""
        window = _array(self._latest)
        if self.spec.relative:
            first = _array([self._first])
            window = window / np.where(first > 0, first, np.nan)
        summed = np.nansum(window, axis=0)
        return np.asarray(summed / np.maximum(1, np.sum(~np.isnan(window), axis=0)) if self.spec.targets else summed, np.float64)

    def _rate(self) -> float:
        if not self.spec.growing:
            return self.spec.eta
        latest, first = _array(self._latest[-1:])[0], _array([self._first])[0]
        both = ~np.isnan(latest) & self.counted
        fallen = float(latest[both].sum() / first[both].sum()) if first[both].sum() > 0 else 1.0
        return self.spec.eta / max(fallen, 1e-12)

    def _given(self, losses: FloatArray, eta: float) -> FloatArray:
        own = np.diag(np.diag(self.graph))
        graph = own + (self.graph - own) * 0.5 ** (self._updates * self.spec.halving)
        scores = eta * (graph @ np.where(self.counted, losses, 0.0)) + np.log(self.prior)
        if not self.spec.even_isolated:
            return softmax(scores)
        others = self.graph - own
        alone = ~(others.any(0) | others.any(1))
        if alone.all():
            return np.full(len(scores), 1 / len(scores))
        shares = np.full(len(scores), 1 / len(scores))
        shares[~alone] = softmax(scores[~alone]) * (1 - alone.mean())
        return shares

    def state_dict(self) -> dict[str, Any]:
        """Return losses, rounds and shares."""
        return {
            "latest": [list(losses) for losses in self._latest], "first": list(self._first), "round": self._round, "updates": self._updates,
            "shares": list(self._shares),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved losses and shares."""
        self._latest = [list(losses) for losses in state["latest"]]
        self._first, self._shares = list(state["first"]), [float(share) for share in state["shares"]]
        self._round, self._updates = int(state["round"]), int(state["updates"])


def _array(losses: Sequence[Sequence[float | None]]) -> FloatArray:
    return np.array([[np.nan if loss is None else loss for loss in row] for row in losses], np.float64)


def _known(name: str, names: Sequence[str], where: str) -> int:
    if name not in names:
        raise InputError(f"{where}: there is no arm {name!r}{nearest(name, names)}")
    return names.index(name)


def _matrix(spec: SkillIt, names: Sequence[str]) -> FloatArray:
    found = np.eye(len(names))
    if isinstance(spec.graph, Mapping):
        for name, helped in spec.graph.items():
            for other, weight in helped.items():
                place = _known(name, names, "graph of teachers/skill_it"), _known(other, names, "graph of teachers/skill_it")
                found[place] = weight
    elif spec.graph is not None:
        shapes = {len(spec.graph), *map(len, spec.graph)}
        if shapes != {len(names)}:
            raise InputError(
                f"graph of teachers/skill_it must have {len(names)} rows of as many numbers, one for each of {', '.join(names)}"
            )
        found = np.array(spec.graph, np.float64)
    if not np.all(np.isfinite(found)):
        raise InputError(f"graph of teachers/skill_it must be finite, found {found.tolist()}")
    beside = ~np.eye(len(names), dtype=bool)
    found = np.where(beside & (found == 1.0), spec.unit_edge, found)
    return np.asarray(np.maximum(found, 0.0) if spec.clip else found, np.float64)
