"""The check of teachers notices what it is about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.teachers import Asking, Lessons, Uniform
from outlay.teachers.base import drawn, drawn_without, even, expected_without
from outlay.testing import check_teacher


@dataclass
class Counting:
    """Keeps, for every arm, how often it was used; draws by it."""

    arms: int
    used: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.used = [0] * self.arms

    def shares(self, asking: Asking) -> FloatArray:
        weights = 1.0 / (1.0 + np.array(self.used))
        return np.asarray(weights / weights.sum())

    def choose(self, asking: Asking) -> IntArray:
        return drawn(self.shares(asking), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        for arm in chosen.tolist():
            self.used[arm] += 1

    def state_dict(self) -> dict[str, Any]:
        return {"used": list(self.used)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.used = list(state["used"])


class Negative(Counting):
    def shares(self, asking: Asking) -> FloatArray:
        return np.array([2.0, -1.0] + [0.0] * (self.arms - 2))


class NotOne(Counting):
    def shares(self, asking: Asking) -> FloatArray:
        return even(self.arms) * 0.99


class TooFew(Counting):
    def choose(self, asking: Asking) -> IntArray:
        return super().choose(asking)[1:]


class OutOfRange(Counting):
    def choose(self, asking: Asking) -> IntArray:
        return super().choose(asking) + 1


class ChangedByAsking(Counting):
    def choose(self, asking: Asking) -> IntArray:
        self.used[0] += 1
        return super().choose(asking)


class Restless(Counting):
    def choose(self, asking: Asking) -> IntArray:
        return np.random.default_rng().integers(self.arms, size=asking.count)


class Dishonest(Counting):
    def choose(self, asking: Asking) -> IntArray:
        return drawn(even(self.arms) * np.arange(self.arms), asking)


class Forgets(Counting):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.used = [0] * self.arms


class Grows(Counting):
    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        super().update(chosen, outcomes)
        self.used.append(len(outcomes))

    def shares(self, asking: Asking) -> FloatArray:
        return even(self.arms)


class NeedsRewards(Counting):
    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        for one in outcomes:
            self.used[one.arm] += int(one.rewards[0])


class NeedsRates(Counting):
    def shares(self, asking: Asking) -> FloatArray:
        weights = asking.rates + 1.0
        return np.asarray(weights / weights.sum())


class WritesRates(Counting):
    def choose(self, asking: Asking) -> IntArray:
        asking.rates[:] = 0.5
        return super().choose(asking)


class KeepsTooMany(Counting):
    over: ClassVar[int] = 2

    def screen(self, rates: FloatArray, asking: Asking) -> IntArray:
        return np.arange(len(rates))


class ForgetsRanks(Counting):
    scores: FloatArray | None = None

    def shares(self, asking: Asking) -> FloatArray:
        weights = np.ones(self.arms) if self.scores is None else self.scores + 1
        return np.asarray(weights / weights.sum())

    def ranked(self, scores: FloatArray) -> None:
        self.scores = scores.copy()


class ForgetsExaminations(Counting):
    """Remembers what it was examined in, but not in its state."""

    losses: FloatArray | None = None

    def shares(self, asking: Asking) -> FloatArray:
        weights = np.ones(self.arms) if self.losses is None else np.nan_to_num(self.losses) + 1
        return np.asarray(weights / weights.sum())

    def examined(self, losses: FloatArray, progress: float) -> None:
        self.losses = losses.copy()


@dataclass(frozen=True)
class Opens:
    """A teacher for any lessons."""

    kind: type

    def open(self, arms: Sequence[Arm], context: Context) -> Lessons:
        return self.kind(len(arms))  # type: ignore[no-any-return]


class Teaches:
    """The same without fields, which a recipe would have to write."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def open(self, arms: Sequence[Arm], context: Context) -> Lessons:
        return self.kind(len(arms))  # type: ignore[no-any-return]


def test_good_teachers_pass() -> None:
    check_teacher(Uniform())
    check_teacher(Teaches(Counting))
    check_teacher(Uniform(), [Arm("alone")], steps=2)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Negative, "shares are >= 0"),
        (NotOne, "shares sum to 1"),
        (TooFew, "as many questions are chosen"),
        (OutOfRange, "arms that are chosen exist"),
        (ChangedByAsking, "asking changes nothing"),
        (Restless, "equal askings are answered equally"),
        (Dishonest, "as often as their shares say"),
        (Forgets, "never having stopped"),
        (Grows, "a size that it keeps"),
        (NeedsRates, "shares are >= 0"),
        (KeepsTooMany, "count ascending positions"),
        (ForgetsRanks, "ranks belong to the state"),
        (ForgetsExaminations, "never having stopped|made and driven alike"),
    ],
)
def test_what_is_broken_is_named(kind: type, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_teacher(Teaches(kind))


@pytest.mark.parametrize(("kind", "error"), [(NeedsRewards, IndexError), (WritesRates, ValueError)])
def test_what_raises_is_not_caught(kind: type, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_teacher(Teaches(kind))


def test_a_teacher_that_no_recipe_can_write_is_refused() -> None:
    with pytest.raises(AssertionError, match="described fields build an equal object"):
        check_teacher(Opens(Counting))


def test_shares_of_sets() -> None:
    weights = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
    assert np.allclose(expected_without(weights, 1), weights)
    assert np.array_equal(expected_without(weights, 4), [0.25, 0.25, 0.25, 0.25, 0])
    assert np.allclose(expected_without(weights, 5), (np.array([1, 1, 1, 1, 0]) + weights) / 5)
    assert np.allclose(expected_without(even(7), 3), 1 / 7)
    many = np.random.default_rng(0).dirichlet(np.ones(200))
    asked = [Asking(50, 0.0, many, many, np.random.default_rng(seed)) for seed in range(400)]
    found = sum(np.bincount(drawn_without(many, one), minlength=200) for one in asked) / (400 * 50)
    assert np.max(np.abs(found - expected_without(many, 50))) < 5 * np.sqrt(0.25 / 400) / 50
    assert json.dumps(expected_without(weights, 2).tolist())
