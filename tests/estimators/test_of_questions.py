"""Estimators that read questions: neighbours, the value network and the fit in context, in closed forms and against what they must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlay
from outlay.arms import Arm, FloatArray, Outcome
from outlay.context import Context
from outlay.errors import InputError
from outlay.estimators import Estimates, InContext, NearestNeighbour, ValueNetwork, Windowed
from outlay.estimators.features import logistic

CONTEXT = Context(0)
ONE = [Arm("a")]


def told(features: FloatArray, rewards: Sequence[Sequence[float]], arms: Sequence[int] | None = None) -> list[Outcome]:
    places = arms if arms is not None else [0] * len(rewards)
    return [Outcome(place, tuple(map(float, given)), features=row) for place, given, row in zip(places, rewards, features, strict=True)]


def asked(estimates: Estimates, features: FloatArray) -> FloatArray:
    return estimates.of(np.zeros(len(features), np.int64), features)


def line(*places: float) -> FloatArray:
    return np.array(places, np.float64)[:, None]


def auc(scores: FloatArray, right: np.ndarray) -> float:
    """P(a right one is ranked above a wrong one), ties counted half."""
    above = scores[right][:, None] - scores[~right]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


@pytest.mark.parametrize("name", ["nearest_neighbour", "value_network", "in_context"])
def test_a_question_without_features_is_refused(name: str) -> None:
    estimates = outlay.make(f"estimators/{name}").open(ONE, CONTEXT)
    for refused in (lambda: estimates.update([Outcome(0, (1.0,))]), lambda: estimates.of(np.array([0]), None)):
        with pytest.raises(InputError, match="reads each question's features"):
            refused()


@pytest.mark.parametrize("name", ["nearest_neighbour", "value_network", "in_context"])
def test_the_rate_of_an_arm_is_the_mean_of_its_latest_answers(name: str) -> None:
    estimates = outlay.make(f"estimators/{name}").open([Arm("a"), Arm("b"), Arm("c")], CONTEXT)
    estimates.update(told(line(0, 1, 2), [[1, 0, 0], [1], [0]], arms=[0, 1, 0]))
    assert estimates.rates() == pytest.approx([1 / 4, 1, np.nan], nan_ok=True)
    assert estimates.seen().tolist() == [4, 1, 0]
    estimates.update(told(line(0), [[1] * 14], arms=[0]))
    assert (estimates.rates()[0], estimates.seen()[0]) == (14 / 16, 16)


# ---- neighbours --------------------------------------------------------------------------------------------------------------------


def test_neighbours_by_hand() -> None:
    known = told(line(0, 1, 4, 10), [[0, 1], [1], [0], [1, 1, 0, 0]])
    for k, weighted, wanted in (
        (1, False, [0.5, 1, 0.5]),
        (2, False, [0.75, 0.5, 0.25]),
        (3, True, [(0.5 / 0.25 + 1 / 0.75) / (1 / 0.25 + 1 / 0.75 + 1 / 3.75), (0.5 / 2 + 1 / 1) / (1 / 2 + 1 / 1 + 1 / 2), None]),
        (9, False, [0.5, 0.5, 0.5]),
    ):
        estimates = NearestNeighbour(k=k, weighted=weighted, least=4).open(ONE, CONTEXT)
        estimates.update(known)
        found = asked(estimates, line(0.25, 2, 9))
        for seen, expected in zip(found, wanted, strict=True):
            assert expected is None or seen == pytest.approx(expected)


def test_a_question_that_was_met_outweighs_all_others() -> None:
    estimates = NearestNeighbour(k=3, weighted=True, least=1).open(ONE, CONTEXT)
    estimates.update(told(line(0, 1, 2), [[1, 0], [1], [1]]))
    assert asked(estimates, line(0)) == pytest.approx(0.5, abs=2e-6)
    wide = np.random.default_rng(0).standard_normal((8, 333)) + 100
    estimates = NearestNeighbour(k=6, weighted=True, least=1).open(ONE, CONTEXT)
    estimates.update(told(np.repeat(wide, 3, axis=0), [[1], [0], [0]] * 8))  # each was met three times, all count alike
    assert asked(estimates, wide) == pytest.approx(1 / 3, abs=1e-4)


def test_six_questions_are_needed_and_only_the_latest_are_remembered() -> None:
    estimates = NearestNeighbour(window=7).open(ONE, CONTEXT)
    estimates.update(told(line(*range(5)), [[1]] * 5))
    assert np.isnan(asked(estimates, line(0))).all()
    estimates.update(told(line(5), [[0]]))
    assert asked(estimates, line(0, 5)).tolist() == [1, 0]
    estimates.update(told(line(*range(6, 12)), [[0]] * 6))
    assert asked(estimates, line(0)).tolist() == [0]


@given(st.integers(1, 6), st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=12))
def test_of_equally_far_questions_the_later_count(k: int, known: list[tuple[float, float]]) -> None:
    estimates = NearestNeighbour(k=k, least=1, window=20).open(ONE, CONTEXT)
    estimates.update(told(line(*(place for place, _ in known)), [[reward] for _, reward in known]))
    order = sorted(range(len(known)), key=lambda i: (abs(known[i][0] - 1.0), -i))[:k]
    assert asked(estimates, line(1.0)) == pytest.approx(sum(known[i][1] for i in order) / len(order))


def test_rounding_does_not_choose_among_equal_questions() -> None:
    wide = np.random.default_rng(0).standard_normal((67, 333)) + 10
    estimates = NearestNeighbour().open(ONE, CONTEXT)
    estimates.update(told(np.concatenate([wide] * 3), [[1]] * 67 + [[1]] * 67 + [[0]] * 67))
    assert not asked(estimates, wide + 0.01).any()


def test_arms_with_places_are_estimated_before_they_are_asked() -> None:
    arms = [
        Arm("low", point=(0.0, 0.0)),
        Arm("near low", point=(0.1, 0.1)),
        Arm("high", point=(1.0, 1.0)),
        Arm("near high", point=(0.8, 1.0)),
    ]
    estimates = NearestNeighbour(reads="nothing", least=2).open(arms, CONTEXT)
    estimates.update([Outcome(0, (1.0,)), Outcome(2, (0.0, 0.5))])
    assert estimates.rates().tolist() == [1, 1, 0.25, 0.25]
    assert estimates.seen().tolist() == [1, 0, 2, 0]
    assert estimates.of(np.array([3, 1]), None).tolist() == [0.25, 1]


@pytest.mark.parametrize("arms", [[Arm("a")], [Arm("a", point=(0.0,)), Arm("b", point=(0.0, 1.0))]])
def test_arms_without_places_are_refused(arms: list[Arm]) -> None:
    with pytest.raises(InputError, match="goes by the arms' places"):
        NearestNeighbour(reads="nothing").open(arms, CONTEXT)


# ---- the value network -------------------------------------------------------------------------------------------------------------


def test_nothing_is_known_before_the_first_batch() -> None:
    assert np.isnan(asked(ValueNetwork().open(ONE, CONTEXT), line(1, 2))).all()


@pytest.mark.parametrize("right", [[0, 8, 1], [8, 7, 7], [2, 2, 2]])
def test_the_loss_is_least_at_the_mean_reward(right: list[int]) -> None:
    """Questions that nothing tells apart: squared error to each one's mean success leads to the mean of those."""
    estimates = ValueNetwork(lr=0.03).open(ONE, CONTEXT)
    batch = told(np.ones((3, 2)), [[1.0] * count + [0.0] * (8 - count) for count in right])
    for _ in range(600):
        estimates.update(batch)
    assert asked(estimates, np.ones((1, 2))) == pytest.approx(np.mean(right) / 8, abs=0.01)


def test_gradients_agree_with_automatic_ones_and_adam_with_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    features, rates = rng.standard_normal((20, 5)), rng.random(20)
    estimates = ValueNetwork(hidden=7, minibatch=8, lr=0.01).open(ONE, Context(3))
    estimates._begin(5)
    estimates._weights[2] += 0.3
    estimates._weights[3] -= 0.2
    weights = [torch.tensor(weight.copy(), requires_grad=True) for weight in estimates._weights]
    adam = torch.optim.Adam(weights, lr=0.01)
    estimates._begin = lambda width: None  # type: ignore[method-assign]  # it has begun, from weights that are not its own
    for _ in range(2):
        estimates.update(told(features, [[rate] for rate in rates]))
        z = torch.tensor((features - features.mean(0)) / features.std(0))
        for start in (0, 8, 16):
            a, b, w, c = weights
            found = torch.sigmoid(torch.tanh(z[start : start + 8] @ a.T + b) @ w + c)
            adam.zero_grad()
            ((found - torch.tensor(rates[start : start + 8])) ** 2).mean().backward()
            adam.step()
    for mine, other in zip(estimates._weights, weights, strict=True):
        assert mine == pytest.approx(other.detach().numpy(), abs=1e-9)


def test_the_network_follows_from_the_seed_and_starts_in_the_middle() -> None:
    features = np.random.default_rng(1).standard_normal((40, 6))
    rewards = [[float(row[0] > 0)] for row in features]

    def after(seed: int, lr: float) -> FloatArray:
        estimates = ValueNetwork(lr=lr).open(ONE, Context(seed))
        estimates.update(told(features, rewards))
        return asked(estimates, features)

    assert np.array_equal(after(0, 1e-2), after(0, 1e-2))
    assert not np.array_equal(after(0, 1e-2), after(1, 1e-2))
    assert after(0, 1e-9) == pytest.approx(0.5, abs=1e-6)


def test_the_scale_of_features_does_not_matter() -> None:
    features = np.random.default_rng(1).standard_normal((40, 6))
    found = []
    for scale, shift in ((np.ones(6), 0.0), (10.0 ** np.arange(-2, 4), 5.0)):
        estimates = ValueNetwork().open(ONE, CONTEXT)
        for part in (slice(0, 10), slice(10, 40)):  # mean and variance are joined from parts
            estimates.update(told(features[part] * scale + shift, [[float(row[0] > 0)] for row in features[part]]))
        found.append(asked(estimates, features * scale + shift))
    assert found[0] == pytest.approx(found[1], abs=1e-9)
    assert estimates._mean == pytest.approx((features * scale + shift).mean(0))
    assert estimates._spread / 40 == pytest.approx((features * scale + shift).var(0))


def questions(rng: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
    """Five levels, each a coordinate and a part of the one below, beside nine coordinates of noise; how hard each question is."""
    level = rng.integers(0, 5, count)
    features = np.zeros((count, 14))
    features[np.arange(count), level] = 1.0
    features[np.arange(count)[level > 0], level[level > 0] - 1] = 0.7
    features[:, 5:] = 0.3 * rng.standard_normal((count, 9))
    return features, 1 + 2.2 * level + 0.6 * rng.standard_normal(count)


def test_a_value_network_knows_more_than_what_was_noted_of_each_question() -> None:
    """While the policy learns, what one visit of a question said is old at the next; the network has learnt from all the others since."""
    by_network, by_notes = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        features, hard = questions(rng, 600)
        arms = [Arm(str(number)) for number in range(600)]
        network = ValueNetwork(lr=1e-2).open(arms, Context(seed))
        notes = Windowed(least=1).open(arms, Context(seed))
        order = rng.permutation(600)
        for step in range(18):  # every question at most once
            rates = logistic(features[:, :5] @ (2.0 + 6.0 * step / 18 * np.ones(5)) - hard)
            batch = order[32 * step : 32 * step + 32]
            rewards = rng.random((len(batch), 8)) < rates[batch, None]
            outcomes = told(features[batch], rewards.tolist(), batch.tolist())
            network.update(outcomes)
            notes.update(outcomes)
        rates = logistic(features[:, :5] @ (8.0 * np.ones(5)) - hard)
        every = np.arange(600)
        noted = notes.of(every, None)
        by_network.append(np.corrcoef(rates, network.of(every, features))[0, 1])
        by_notes.append(np.corrcoef(rates, np.where(np.isnan(noted), np.nanmean(noted), noted))[0, 1])
    assert min(by_network) > max(by_notes) + 0.05, (by_network, by_notes)


# ---- the fit in context ------------------------------------------------------------------------------------------------------------


def test_the_fit_is_the_minimum_of_its_loss() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    features, rates = rng.standard_normal((30, 4)) * 3 + 1, rng.integers(0, 9, 30) / 8
    estimates = InContext(penalty=0.2).open(ONE, CONTEXT)
    estimates.update(told(features, [[rate] for rate in rates]))
    z = torch.tensor((features - features.mean(0)) / features.std(0))
    w, c = torch.zeros(4, dtype=torch.float64, requires_grad=True), torch.zeros(1, dtype=torch.float64, requires_grad=True)
    newton = torch.optim.LBFGS([w, c], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Any:
        newton.zero_grad()
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(z @ w + c, torch.tensor(rates), reduction="sum")
        found = entropy + 0.2 * 4 / 2 * (w**2).sum() + (c**2).sum() / 20
        found.backward()
        return found

    newton.step(loss)
    wanted = torch.sigmoid(z @ w + c).detach().numpy()
    assert asked(estimates, features) == pytest.approx(wanted, abs=1e-5)


def test_the_order_of_the_context_says_nothing() -> None:
    rng = np.random.default_rng(0)
    features, rewards = rng.standard_normal((50, 6)), (rng.random((50, 4)) < 0.4).tolist()
    found = []
    for order in (np.arange(50), rng.permutation(50)):
        estimates = InContext().open(ONE, CONTEXT)
        estimates.update(told(features[order], [rewards[i] for i in order]))
        found.append(asked(estimates, features))
    assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_a_context_of_one_class_is_no_ground() -> None:
    for hard, rewards, known in (
        (False, [[1], [1, 1]], False),
        (False, [[0], [0, 0]], False),
        (False, [[0], [1]], True),
        (False, [[1, 0]], True),
        (True, [[1], [1, 0]], False),
        (True, [[0], [1, 0, 0]], False),
        (True, [[1], [1, 0, 0]], True),
    ):
        estimates = InContext(hard=hard).open(ONE, CONTEXT)
        estimates.update(told(line(*range(len(rewards))), rewards))
        assert np.isnan(asked(estimates, line(0.5))).all() == (not known), (hard, rewards)


def test_hard_labels_sharpen() -> None:
    features, rewards = line(*[0] * 20, *[1] * 20), [[1, 0, 0]] * 20 + [[1, 1, 0]] * 20
    found = []
    for hard in (False, True):
        estimates = InContext(hard=hard, penalty=1e-3).open(ONE, CONTEXT)
        estimates.update(told(features, rewards))
        found.append(asked(estimates, line(0, 1)))
    assert found[0] == pytest.approx([1 / 3, 2 / 3], abs=0.01)
    assert found[1][0] < 0.05 and found[1][1] > 0.95


def test_a_changed_policy_is_followed_within_one_context() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((64, 3))
    fresh, grown = InContext(context=64).open(ONE, CONTEXT), InContext(context=64).open(ONE, CONTEXT)
    grown.update(told(features, [[float(row[0] < 0)] for row in features]))
    asked(grown, features)  # fitted in between
    for estimates in (fresh, grown):
        estimates.update(told(features, [[float(row[0] > 0)] for row in features]))
    assert np.array_equal(asked(fresh, features), asked(grown, features))


def test_an_unseen_policy_is_predicted_better_than_by_how_hard_questions_are() -> None:
    """Policies differ in what they are good at. Against the rate of each question averaged over 200 other policies, which no run knows that
    well, and against what another policy's answers to the same question say."""
    by_context, by_difficulty, by_notes = [], [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((512, 8))
        hard = features @ rng.standard_normal(8) / np.sqrt(8)
        policies = rng.standard_normal((201, 8)) * 2 / np.sqrt(8)
        rates = logistic(features @ policies.T - hard[:, None])
        right = rng.random((512, 8)) < rates[:, :1]
        estimates = InContext().open(ONE, CONTEXT)
        estimates.update(told(features[:256], right[:256].tolist()))
        came = rng.random(256) < rates[256:, 0]
        by_context.append(auc(asked(estimates, features[256:]), came))
        by_difficulty.append(auc(rates[256:, 1:].mean(1), came))
        by_notes.append(auc((rng.random((256, 8)) < rates[256:, 1:2]).mean(1), came))
    assert np.mean(by_context) > max(np.mean(by_difficulty), np.mean(by_notes)) + 0.05, (by_context, by_difficulty, by_notes)


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (NearestNeighbour, {"k": 0}, "k must be > 0"),
        (NearestNeighbour, {"k": 5, "window": 4}, "window must be >= k = 5"),
        (NearestNeighbour, {"least": 0}, "least must be > 0"),
        (NearestNeighbour, {"reads": "tea leaves"}, "reads must be nothing, text or model"),
        (ValueNetwork, {"hidden": 0}, "hidden must be > 0"),
        (ValueNetwork, {"lr": 0.0}, "lr must be > 0"),
        (ValueNetwork, {"minibatch": 0}, "minibatch must be > 0"),
        (ValueNetwork, {"reads": "nothing"}, "reads must be text or model"),
        (InContext, {"context": 1}, "context must be > 1"),
        (InContext, {"penalty": 0.0}, "penalty must be > 0"),
        (InContext, {"reads": "nothing"}, "reads must be text or model"),
    ],
)
def test_ranges(cls: type, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        cls(**fields)
    assert message in str(caught.value)
