"""Automatic discount scheduling: look further ahead as more of a demonstration is mastered."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from outlay.catalog import Paper
from outlay.record import Record
from outlay.schedules.base import require

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class _State:
    mastered: int


@dataclass
class AutomaticDiscount:
    """Discount gamma = alpha^(1/k), k the steps of the demonstration that are mastered: a reward k steps ahead always weighs alpha.

    Every episode is a sequence of expert steps, the one nearest to each of the agent's. Of those up to step k (counted from 0, so k + 1 of
    them) the longest increasing subsequence is taken, the most that the agent followed in the expert's order. Where it holds at least
    ``share`` k steps, k grows by one; it never falls. One episode raises k at most once.

    The sequences are read from a step's ``detail["expert_steps"]``, one an episode: lists or whole-number tensors, or one tensor of shape
    (episodes, steps); negative entries are padding. An agent's step that is nearest to an expert step after k is left out; whoever finds the
    nearest among the first k + 1 alone (``nearest_expert_steps(..., first=controller.mastered + 1)``) has the paper's restriction to the letter.

    ``alpha`` and ``share`` are from memory of the paper. k starts at 1, where gamma = alpha, since 0 would leave no reward at all.

    Args:
        alpha: weight of a reward k steps ahead, in (0, 1).
        share: share of the k steps that counts as mastery, in (0, 1].
        length: expert steps in the demonstration, at which k ends, >= 1; None sets no end.
        start: k at the beginning, >= 1.
    """

    title: ClassVar[str] = "Automatic discount scheduling"
    paper: ClassVar[Paper | None] = Paper("2310.07433", "Imitation Learning from Observation with Automatic Discount Scheduling", 2023)

    alpha: float = 0.2
    share: float = 0.9
    length: int | None = None
    start: int = 1
    _state: _State = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(0 < self.alpha < 1, f"alpha must lie in (0, 1), found {self.alpha}")
        require(0 < self.share <= 1, f"share must lie in (0, 1], found {self.share}")
        require(self.start >= 1, f"start must be >= 1, found {self.start}")
        require(self.length is None or self.length >= self.start, f"length must be >= start = {self.start}, or None, found {self.length}")
        self._state = _State(self.start)

    @property
    def mastered(self) -> int:
        """Return k, the expert steps that are mastered."""
        return self._state.mastered

    def value(self, progress: float) -> float:
        """Return the discount reached so far; progress does not enter."""
        return math.pow(self.alpha, 1.0 / self._state.mastered)

    def observe(self, record: Record) -> None:
        """Judge a step's episodes one after the other."""
        if record.kind != "step":
            return
        for episode in record.detail.get("expert_steps", ()):
            known = self._state.mastered
            if self.length is not None and known >= self.length:
                return
            followed = longest_increasing(step for step in map(int, episode) if 0 <= step <= known)
            if followed >= self.share * known:
                self._state.mastered = known + 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {"mastered": self._state.mastered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._state = _State(state["mastered"])


def longest_increasing(steps: Iterable[int]) -> int:
    """Return the length of the longest strictly increasing subsequence, in O(n log n)."""
    # ends[i]: the smallest last member of an increasing subsequence of i + 1 members
    ends: list[int] = []
    for step in steps:
        place = bisect_left(ends, step)
        ends[place : place + 1] = [step]
    return len(ends)


def nearest_expert_steps(agent: Tensor, expert: Tensor, *, first: int | None = None) -> list[int]:
    """Return for each of the agent's steps the expert step of smallest cosine cost; the earliest among equals.

    Args:
        agent: features, shape (agent steps, features).
        expert: features, shape (expert steps, features).
        first: look among the first so many expert steps, >= 1; None means all.
    """
    require(first is None or first >= 1, f"first must be >= 1, or None, found {first}")
    nearest: list[int] = cosine_cost(agent, expert[:first]).argmin(dim=1).tolist()
    return nearest


def cosine_cost(agent: Tensor, expert: Tensor) -> Tensor:
    """Return 1 - cosine of every pair, shape (agent steps, expert steps); an all-zero row has cosine 0 with everything.

    Args:
        agent: features, shape (agent steps, features).
        expert: features, shape (expert steps, features).
    """
    one, other = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in (agent, expert))
    return 1.0 - one @ other.T


def transport_rewards(cost: Tensor, *, regularisation: float = 0.05, iterations: int = 100) -> Tensor:
    """Return the proxy reward r_t = -sum_j P_tj C_tj, P the entropic optimal transport between both trajectories, each step weighing alike.

    P = exp((f_i + g_j - C_ij) / regularisation); f and g are fitted in turns to the marginals 1/n and 1/m (Sinkhorn), in logarithms.
    The rewards sum to minus the cost of the transport.

    Args:
        cost: C, such as ``cosine_cost(agent, expert)``; shape (agent steps, expert steps).
        regularisation: weight of the entropy in the unit of the cost, > 0; the plan becomes the cheapest one as it goes to 0.
        iterations: turns, >= 1.

    Returns:
        Shape (agent steps,).
    """
    require(0 < regularisation < math.inf, f"regularisation must be finite and > 0, found {regularisation}")
    require(iterations >= 1, f"iterations must be >= 1, found {iterations}")
    agents, experts = cost.shape
    scaled = -cost / regularisation
    row = col = scaled.new_zeros(())
    for _ in range(iterations):
        row = -math.log(agents) - (scaled + col).logsumexp(dim=1, keepdim=True)
        col = -math.log(experts) - (scaled + row).logsumexp(dim=0, keepdim=True)
    return -((scaled + row + col).exp() * cost).sum(dim=1)
