"""Every estimator keeps its family's contract, and every rule of the contract refuses an estimator that breaks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

import outlay
from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.estimators import METHODS, Beta, Estimates, NearestNeighbour
from outlay.estimators.beta import BetaEstimates
from outlay.estimators.nearest_neighbour import NeighbourEstimates
from outlay.testing import check_estimator

OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("windowed", {"window": 3, "least": 1}),
    ("beta", {"decay": 0.9, "threshold": 0.2}),
    ("category_average", {"window": 20}),
    ("category_average", {"alpha": 1}),
    ("nearest_neighbour", {"reads": "nothing", "k": 3, "least": 1}),
    ("nearest_neighbour", {"reads": "model", "k": 5, "weighted": True, "window": 20}),
    ("value_network", {"reads": "text", "minibatch": 5}),
    ("in_context", {"hard": True, "context": 20, "reads": "model"}),
]


@pytest.mark.parametrize(("name", "fields"), [*((name, {}) for name in METHODS), *OTHERS])
def test_estimators_keep_their_contract(name: str, fields: dict[str, Any]) -> None:
    check_estimator(lambda: outlay.make(f"estimators/{name}", **fields))


@dataclass(frozen=True)
class Faulty:
    """Beta posteriors, or neighbours where questions are read, with one fault."""

    fault: str = ""
    reading: bool = False

    @property
    def reads(self) -> Any:
        return "everything" if self.fault == "reads" else "model" if self.reading else "nothing"

    def open(self, arms: Sequence[Arm], context: Context) -> Estimates:
        inner = NearestNeighbour(k=3, least=1, reads="model").open(arms, context) if self.reading else Beta().open(arms, context)
        if self.fault == "global":
            np.random.random()
        return FaultyEstimates(self.fault, inner, [arm.name for arm in arms])  # type: ignore[return-value]


@dataclass
class FaultyEstimates:
    fault: str
    inner: BetaEstimates | NeighbourEstimates
    names: list[str]
    asked: int = 0
    handed: dict[str, Any] = field(default_factory=dict)
    kept: list[Outcome] = field(default_factory=list)

    def rates(self) -> FloatArray:
        rates = self.inner.rates()
        self.asked += 1
        return {
            "shape": lambda: rates[:-1],
            "kind": lambda: rates.astype(np.float32),
            "above": lambda: rates + 0.6,
            "below": lambda: rates - 0.4,
            "asking": lambda: rates * (1 - 1e-9 * self.asked),
            "place": lambda: rates * np.linspace(0.99, 1, len(rates)),
            "backwards": lambda: 1 - rates,
            "away": lambda: np.where(self.inner.seen() > 12, 0.5, rates),
        }.get(self.fault, lambda: rates)()

    def seen(self) -> FloatArray:
        seen = self.inner.seen()
        if self.fault == "own array":
            assert isinstance(self.inner, BetaEstimates)
            return self.inner._tried
        return {"prior": lambda: seen + 1, "negative": lambda: -seen, "blind": lambda: seen * 0}.get(self.fault, lambda: seen)()

    def of(self, arms: IntArray, features: FloatArray | None) -> FloatArray:
        if self.fault == "writes" and features is not None:
            features *= 2
        if self.fault == "counts asking":
            self.asked += 1
        if self.fault == "aliased" and self.kept:
            assert isinstance(self.inner, NeighbourEstimates)
            self.inner.latest.features[-len(self.kept) :] = [one.features for one in self.kept]
        found = self.inner.of(arms, features)
        if self.fault == "together" and len(found):
            return found * (1 - 0.001 * len(found))
        if self.fault == "none":
            return np.append(found, 0.5) if not len(found) else found
        return 1 - found if self.fault == "single" else found

    def update(self, outcomes: Sequence[Outcome]) -> None:
        if self.fault == "unjudged" and any(not one.rewards for one in outcomes):
            self.inner.update([Outcome(0, (1.0,))])
        if self.fault == "scale":
            assert isinstance(self.inner, BetaEstimates)
            self.inner._right += 1e-9 * sum(sum(one.rewards) ** 2 for one in outcomes) / 1e3
        if self.fault == "handed out" and self.handed:
            self.handed["tried"] = []
        self.inner.update(outcomes)
        self.kept = [one for one in outcomes if one.rewards] or self.kept

    def state_dict(self) -> dict[str, Any]:
        state = self.inner.state_dict()
        if self.fault == "counts asking":
            state["asked"] = self.asked
        if self.fault == "array":
            state["tried"] = np.array(state["tried"])
        if self.fault == "forgets":
            state["right"] = [0.0 for _ in state["right"]]
        if self.fault == "handed out":
            self.handed = state
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)
        self.kept = []
        if self.fault == "taken up":
            self.handed = state  # type: ignore[assignment]
            inner, update = self.inner, self.inner.update

            def spoilt(outcomes: Sequence[Outcome]) -> None:
                update(outcomes)
                state["tried"][:] = inner.state_dict()["tried"]

            self.inner.update = spoilt  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("fault", "reading", "rule"),
    [
        ("reads", False, "an estimator reads one of"),
        ("global", False, "randomness comes from named streams"),
        ("shape", False, "rates returns an array of 64-bit floats"),
        ("kind", False, "rates returns an array of 64-bit floats"),
        ("above", False, "rates lie in \\[0, 1\\]"),
        ("below", False, "rates lie in \\[0, 1\\]"),
        ("prior", False, "just opened know nothing"),
        ("negative", False, "seen is finite and >= 0"),
        ("asking", False, "asking changes nothing"),
        ("own array", False, "asking changes nothing, and what is handed out is a copy"),
        ("counts asking", False, "asking changes nothing"),
        ("writes", True, "of leaves what it is handed alone"),
        ("together", False, "does not depend on those asked with it"),
        ("none", False, "no questions have no rates"),
        ("array", False, "a state is plain values"),
        ("forgets", False, "going on from a state equals never having stopped"),
        ("handed out", False, "a state handed out is a copy"),
        ("taken up", False, "a state taken up is copied"),
        ("aliased", True, "features that are learnt from are copied"),
        ("unjudged", False, "unjudged outcomes change nothing"),
        ("scale", False, "rewards beyond 0 and 1 count as 0 and 1"),
        ("place", False, "arms in another order"),
        ("blind", False, "judged answers are seen"),
        ("backwards", False, "arms that are always answered right"),
        ("single", False, "questions that are always answered right"),
        ("away", False, "arms that are always answered right"),
    ],
)
def test_each_rule_refuses_what_breaks_it(fault: str, reading: bool, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_estimator(lambda: Faulty(fault, reading))


@pytest.mark.parametrize("reading", [False, True])
def test_without_its_faults_it_passes(reading: bool) -> None:
    check_estimator(lambda: Faulty(reading=reading))


def test_equal_rewards_lead_toward_their_rate() -> None:
    @dataclass
    class Drifting(BetaEstimates):
        """Tells right from wrong, but goes back to the middle the longer all are alike."""

        def rates(self) -> FloatArray:
            rates = super().rates()
            spread = float(rates.max() - rates.min())
            return rates if spread > 0.1 else 0.5 + (rates - 0.5) / (1 + self._tried)

    @dataclass(frozen=True)
    class Opens:
        reads: ClassVar[Any] = "nothing"

        def open(self, arms: Sequence[Arm], context: Context) -> Estimates:
            return Drifting(Beta(), len(arms))

    with pytest.raises(AssertionError, match="equal rewards lead every arm toward their rate"):
        check_estimator(Opens)


def test_the_check_needs_two_categories() -> None:
    arms = [Arm(str(number), "one") for number in range(8)]
    with pytest.raises(AssertionError, match="two categories"):
        check_estimator(Beta, arms)


def test_unjudged_questions_need_no_features() -> None:
    described: Callable[[], Any] = lambda: NearestNeighbour(reads="model")  # noqa: E731
    estimates = described().open([Arm("a")], Context(0))
    estimates.update([dataclasses.replace(Outcome(0, ()), features=None)])
    assert np.isnan(estimates.rates()).all()
