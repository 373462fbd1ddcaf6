"""The contract of estimators."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.estimators.base import Estimates, Estimator, Reads
from outlay.rng import numpy_generator
from outlay.testing.common import global_generators_untouched, hold
from outlay.testing.plain import _check_rebuilt, check_resumable

_CONTEXT = Context(seed=0)
#: two categories, places that lie apart, one arm that is never asked
_ARMS = tuple(
    Arm(f"{category}/{level}", category, difficulty=float(level), point=(place, level / 4), text=f"{category} {level}?")
    for place, category in ((0.0, "sum"), (1.0, "gcd"))
    for level in (1, 2, 3)
)


def check_estimator(
    make: Callable[[], Estimator], arms: Sequence[Arm] = _ARMS, context: Context = _CONTEXT, *, width: int = 12, rounds: int = 60
) -> None:
    """Check the estimator seam: rates, purity, state, what changes nothing, the arms' order, and that rates go where rewards are.

    Args:
        make: returns an estimator, described alike each time.
        arms: what it is opened over; two categories at least, several arms, with what the estimator needs of them.
        context: what it is opened with.
        width: of the features that are handed to an estimator that reads some, > 1.
        rounds: updates within which an estimator must have told arms that are always answered right from those that never are.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    estimator = make()
    name = type(estimator).__name__
    hold(isinstance(estimator, Estimator), "an estimator has reads and open", f"{name} lacks one of them")
    hold(estimator.reads in get_args(Reads), f"an estimator reads one of {get_args(Reads)}", f"{name} reads {estimator.reads!r}")
    _check_rebuilt(estimator)
    made = _Made(arms, width if estimator.reads != "nothing" else 0)
    open_ = lambda: make().open(arms, context)  # noqa: E731
    open_()  # the first time may import packages, and some of those draw as they are imported
    with global_generators_untouched(name):
        estimates = open_()
        hold(
            isinstance(estimates, Estimates), "estimates have rates, seen, of, update and a state", f"{type(estimates).__name__} lacks one"
        )
        fresh = estimates.seen()
        hold(not fresh.any(), "estimates that were just opened know nothing", f"{name} has seen {fresh.tolist()}")
        for step in range(5):
            _check_reading(estimates, made, name, f"after {step} updates")
            estimates.update(made.outcomes(step))
        _check_reading(estimates, made, name, "after 5 updates")
    check_resumable(open_, lambda part, step: part.update(made.outcomes(step)), lambda part: _read(part, made), steps=4)
    _check_copies(open_, made, name)
    _check_nothing(open_, made, name)
    _check_successes(open_, made, name)
    _check_order(make, made, context, name)
    _check_direction(open_, made, name, rounds)


class _Made:
    """Questions and outcomes that follow from numbers alone."""

    def __init__(self, arms: Sequence[Arm], width: int) -> None:
        self.arms, self.width = arms, width
        names = sorted({arm.category for arm in arms})
        hold(len(arms) > 3 and len(names) > 1, "the check needs several arms of two categories", f"found {len(arms)} of {names}")
        self.first = np.array([arm.category == names[0] for arm in arms])

    def features(self, arms: IntArray, step: int) -> FloatArray | None:
        """Questions of one category lie around a place of their own."""
        if not self.width:
            return None
        noise = 0.3 * numpy_generator(step, "check_estimator/features").standard_normal((len(arms), self.width))
        sign = np.where(self.first[arms], 1.0, -1.0)[:, None]
        return noise + sign * np.where(np.arange(self.width) % 2, 0.2, -0.2)

    def asked(self, step: int) -> IntArray:
        # the last arm is never asked
        return numpy_generator(step, "check_estimator/arms").integers(0, len(self.arms) - 1, 12)

    def outcomes(self, step: int) -> list[Outcome]:
        rng = numpy_generator(step, "check_estimator/rewards")
        asked = self.asked(step)
        rewards = [tuple(rng.choice([0.0, 0.25, 1.0], int(count)).tolist()) for count in rng.integers(1, 9, len(asked))]
        return self.given(asked, rewards, step)

    def given(self, arms: IntArray, rewards: Sequence[tuple[float, ...]], step: int) -> list[Outcome]:
        features = self.features(arms, step)
        return [
            Outcome(int(arm), rewards[i], features=None if features is None else features[i].copy()) for i, arm in enumerate(arms.tolist())
        ]


def _all_of(made: _Made) -> IntArray:
    return np.tile(np.arange(len(made.arms)), 3)


def _read(estimates: Estimates, made: _Made) -> list[FloatArray]:
    asked = _all_of(made)
    return [estimates.rates(), estimates.seen(), estimates.of(asked, made.features(asked, 1000))]


def _state(estimates: Estimates, name: str) -> str:
    state = estimates.state_dict()
    rule = "a state is plain values that survive JSON"
    try:
        text = json.dumps(state, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{rule}; {name} has the state {state!r}: {error}") from error
    hold(_plain(state), rule, f"{name} has the state {state!r}")
    return text


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _alike(one: Sequence[FloatArray], other: Sequence[FloatArray], within: float = 0.0) -> bool:
    return all(a.shape == b.shape and np.allclose(a, b, rtol=0, atol=within, equal_nan=True) for a, b in zip(one, other, strict=True))


def _check_reading(estimates: Estimates, made: _Made, name: str, when: str) -> None:
    before = _state(estimates, name)
    first = _read(estimates, made)
    kept = [array.copy() for array in first]
    asked = _all_of(made)
    for array, shape, what in zip(first, ((len(made.arms),), (len(made.arms),), asked.shape), ("rates", "seen", "of"), strict=True):
        rule = f"{what} returns an array of 64-bit floats, one number for each"
        hold(
            isinstance(array, np.ndarray) and array.shape == shape and array.dtype == np.float64, rule, f"{name} {when} returned {array!r}"
        )
    rates, seen, single = first
    for array in (rates, single):
        known = array[~np.isnan(array)]
        hold(bool(((known >= 0) & (known <= 1)).all()), "rates lie in [0, 1] or are nan", f"{name} {when} gave {array.tolist()}")
    hold(bool((np.isfinite(seen) & (seen >= 0)).all()), "seen is finite and >= 0", f"{name} {when} gave {seen.tolist()}")
    for array in first:
        array[:] = 0.123  # whoever is handed an array may write into it
    features = made.features(asked, 1000)
    given = None if features is None else features.copy()
    places = asked.copy()
    again = [estimates.rates(), estimates.seen(), estimates.of(places, given)]
    rule = "asking changes nothing, and what is handed out is a copy"
    hold(_alike(again, kept), rule, f"{name} {when} gave {kept} and then {again}")
    hold(_state(estimates, name) == before, rule, f"the state of {name} {when} became another")
    untouched = given is None or features is None or np.array_equal(given, features)
    hold(untouched and np.array_equal(places, asked), "of leaves what it is handed alone", f"{name} {when} wrote into it")
    alone = [estimates.of(asked[i : i + 1], None if given is None else given[i : i + 1]) for i in range(len(asked))]
    hold(_alike([np.concatenate(alone)], kept[2:], 1e-9), "a question's rate does not depend on those asked with it", f"{name} {when}")
    none = estimates.of(asked[:0], None if given is None else given[:0])
    hold(none.shape == (0,), "no questions have no rates", f"{name} {when} gave {none!r}")


def _check_copies(open_: Callable[[], Estimates], made: _Made, name: str) -> None:
    giver, taker, twin = open_(), open_(), open_()
    giver.update(made.outcomes(0))
    twin.update(made.outcomes(0))
    state = giver.state_dict()
    before = json.dumps(state)
    taker.load_state_dict(state)
    for estimates, rule in ((giver, "a state handed out is a copy"), (taker, "a state taken up is copied, not kept")):
        estimates.update(made.outcomes(1))
        hold(json.dumps(state) == before, rule, f"{name} changed {before} in the caller's hands")
    outcomes = made.outcomes(1)
    twin.update(outcomes)
    for one in outcomes:
        if one.features is not None:
            one.features[:] = 9.0  # buffers are used again
    hold(_alike(_read(twin, made), _read(giver, made)), "features that are learnt from are copied", f"{name} kept the caller's array")


def _check_nothing(open_: Callable[[], Estimates], made: _Made, name: str) -> None:
    one, other = open_(), open_()
    for step in range(3):
        outcomes = made.outcomes(step)
        one.update(outcomes)
        unjudged = [dataclasses.replace(made.outcomes(step + 10)[i], rewards=()) for i in range(3)]
        other.update([*unjudged[:1], *outcomes[:4], *unjudged[1:2], *outcomes[4:], *unjudged[2:]])
        for nothing in ([], unjudged, [dataclasses.replace(bare, features=None) for bare in unjudged]):
            other.update(nothing)
        same = _state(one, name) == _state(other, name) and _alike(_read(one, made), _read(other, made))
        hold(same, "unjudged outcomes change nothing", f"{name} after {step + 1} updates differs from its twin that had some more")


def _check_successes(open_: Callable[[], Estimates], made: _Made, name: str) -> None:
    one, other = open_(), open_()
    for step in range(3):
        outcomes = made.outcomes(step)
        one.update(outcomes)
        far = {0.0: -3.0, 1.0: 7.0}
        other.update([dataclasses.replace(was, rewards=tuple(far.get(reward, reward) for reward in was.rewards)) for was in outcomes])
    seen = f"{name} told rewards of -3 and 7 from those of 0 and 1"
    hold(_alike(_read(one, made), _read(other, made)), "rewards beyond 0 and 1 count as 0 and 1", seen)


def _check_order(make: Callable[[], Estimator], made: _Made, context: Context, name: str) -> None:
    order = numpy_generator(3, "check_estimator/order").permutation(len(made.arms))
    place = np.argsort(order)  # arm i lies at place[i] among those in another order
    one, other = make().open(made.arms, context), make().open([made.arms[i] for i in order], context)
    for step in range(4):
        outcomes = made.outcomes(step)
        one.update(outcomes)
        other.update([dataclasses.replace(was, arm=int(place[was.arm])) for was in outcomes])
    asked = _all_of(made)
    features = made.features(asked, 1000)
    found = [one.rates()[order], one.seen()[order], one.of(asked, features)]
    turned = [other.rates(), other.seen(), other.of(place[asked], features)]
    hold(_alike(found, turned, 1e-9), "arms in another order get the same rates in that order", f"{name} gave {found} and {turned}")


def _check_direction(open_: Callable[[], Estimates], made: _Made, name: str, rounds: int) -> None:
    """The first category is always answered in one way, the other in the other; then turned round."""
    asked = np.arange(len(made.arms))
    first = made.first
    for right in (first, ~first):
        estimates = open_()
        for step in range(rounds):
            estimates.update(made.given(asked, [(1.0,) * 4 if right[arm] else (0.0,) * 4 for arm in asked.tolist()], step))
        rates, seen, single = estimates.rates(), estimates.seen(), estimates.of(asked, made.features(asked, 1000))
        hold(bool((seen > 0).all()), "judged answers are seen", f"{name} has seen {seen.tolist()} after {rounds} updates of all arms")
        for array, what in ((rates, "arms"), (single, "questions")):
            rule = f"{what} that are always answered right come to rates above 1/2, those that never are to rates below"
            seen_ = f"after {rounds} updates {name} gave {array.tolist()} where {right.tolist()} are right"
            hold(bool((array[right] > 0.5).all() and (array[~right] < 0.5).all()), rule, seen_)
    for reward in (0.0, 1.0):
        estimates, distances = open_(), []
        for step in range(rounds):
            estimates.update(made.given(asked, [(reward,) * 4] * len(asked), step))
            if step in (0, rounds - 1):
                distances.append(np.abs(estimates.rates() - reward))
        unknown = np.isnan(distances[1])
        rule = "equal rewards lead every arm toward their rate"
        fell = ~unknown & (np.isnan(distances[0]) | (distances[1] <= distances[0])) & (distances[1] < 0.5)
        hold(
            bool(fell.all()),
            rule,
            f"{name} was {distances[0].tolist()} away from {reward} and, {rounds - 1} updates later, {distances[1].tolist()}",
        )
