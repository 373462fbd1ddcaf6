"""ALP-GMM: progress by hand, uniform beginnings, draws by interest, and the toy of the frontier."""

import json

import numpy as np
import pytest

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError, MissingExtra
from outlay.teachers.alp_gmm import AlpGmm
from outlay.teachers.task_space import MixtureSpace, RandomPoint, TaskSpace
from outlay.testing.teachers import check_teacher

pytest.importorskip("sklearn.mixture")


def test_contract() -> None:
    check_teacher(AlpGmm(fit_every=52, most=3), steps=2, long=12)


def tell(space: TaskSpace, tasks: list[tuple[float, float]]) -> None:
    for place, reward in tasks:
        space.update(np.array([[place]]), np.array([reward]))


def test_progress_by_hand() -> None:
    space = AlpGmm().space(1, 0)
    tell(space, [(0.1, 0.0), (0.2, 0.5), (0.9, 1.0), (0.2, 0.25), (0.1, 0.125), (0.9, 0.75)])
    assert [row[-1] for row in space.recent] == [0.0] * 6  # six are done before the first is measured
    tell(space, [(0.18, 1.0), (0.85, 0.5), (0.9, 0.5), (0.85, 0.5)])
    assert space.recent[6:] == [
        [0.18, 0.75],  # the latest at .2 was .25
        [0.85, 0.25],  # the latest at .9 was .75
        [0.9, 0.25],
        [0.85, 0.0],
    ]


def test_of_places_equally_near_the_latest_counts() -> None:
    space = AlpGmm(least=1).space(1, 0)
    tell(space, [(0.25, 1.0), (0.75, 0.25), (0.5, 0.0)])
    assert space.recent[-1] == [0.5, 0.25]
    space = AlpGmm(least=2).space(1, 0)
    tell(space, [(0.25, 1.0), (0.75, 0.25), (0.25, 0.5), (0.5, 0.0)])
    assert space.recent[-1] == [0.5, 0.5]


def test_equal_rewards_are_no_progress_and_all_components_are_alike() -> None:
    space, rng = AlpGmm(fit_every=100, explore=0.0).space(1, 0), np.random.default_rng(0)
    places = np.where(np.arange(100) % 10 == 0, 0.8, 0.2) + 0.02 * rng.standard_normal(100)  # a tenth of the tasks at .8
    space.update(places[:, None], np.full(100, 0.5))
    assert len(space.interests) >= 2 and np.all(space.interests < 1e-9)
    space.interests[:] = 0
    space.means, space.covariances = np.array([[0.2], [0.8]]), np.full((2, 1, 1), 1e-6)
    space.interests = np.zeros(2)
    assert abs(float(np.mean(space.sample(4000, rng) > 0.5)) - 0.5) < 0.03


def test_the_first_tasks_are_uniform_and_then_a_share_explores() -> None:
    space = AlpGmm(fit_every=50, explore=0.3).space(2, 0)
    for _ in range(49):
        space.update(np.array([[0.9, 0.9]]), np.array([0.5]))
    before = space.sample(4000, np.random.default_rng(0))
    np.testing.assert_allclose(np.histogram(before[:, 0], 4, (0, 1))[0] / 4000, 0.25, atol=0.03)
    space.update(np.array([[0.9, 0.9]]), np.array([0.5]))
    after = space.sample(4000, np.random.default_rng(0))
    assert abs(np.mean(np.all(np.abs(after - 0.9) < 0.02, axis=1)) - 0.7) < 0.03  # 1 - explore where all tasks were
    assert np.all((after >= 0) & (after <= 1))


def test_components_are_drawn_by_their_mean_progress_and_cut_off_at_the_box() -> None:
    space = AlpGmm(explore=0.0).space(1, 0)
    space.means, space.covariances = np.array([[0.25], [0.75], [1.2]]), np.full((3, 1, 1), 1e-4)
    space.interests = space.interest(np.array([[0.25, 0.1], [0.75, 0.3], [1.2, -0.1]]), np.zeros((3, 2, 2)))
    drawn = space.sample(4000, np.random.default_rng(0))[:, 0]
    assert abs(np.mean(drawn > 0.5) - 0.75) < 0.03 and not np.any(drawn == 1)
    assert abs(np.std(drawn[drawn < 0.5]) - 0.01) < 0.001
    space.interests = np.array([0.0, 0.0, 1.0])
    assert np.all(space.sample(50, np.random.default_rng(0)) == 1)


def test_correlated_components_are_drawn_as_such() -> None:
    space = AlpGmm(explore=0.0).space(2, 0)
    space.interests, space.means = np.ones(1), np.array([[0.5, 0.5]])
    space.covariances = np.array([[[0.004, 0.003], [0.003, 0.004]]])
    np.testing.assert_allclose(np.cov(space.sample(20000, np.random.default_rng(0)).T), space.covariances[0], atol=2e-4)


def test_fits_hang_on_the_seed_and_the_last_tasks_alone() -> None:
    rng = np.random.default_rng(0)
    points, rewards = rng.random((120, 2)), rng.random(120)
    whole, parts = AlpGmm(fit_every=60).space(2, 5), AlpGmm(fit_every=60).space(2, 5)
    whole.update(points, rewards)
    for start in range(0, 120, 7):
        parts.update(points[start : start + 7], rewards[start : start + 7])
        state = json.loads(json.dumps(parts.state_dict()))
        parts = AlpGmm(fit_every=60).space(2, 5)
        parts.load_state_dict(state)
    assert whole.state_dict() == parts.state_dict()
    assert whole.recent == [] and whole.done == 120
    assert 2 <= len(whole.interests) <= 10


def test_states_know_every_place_once() -> None:
    space = AlpGmm().space(1, 0)
    tell(space, [(0.5, k / 100) for k in range(100)] + [(0.25, 0.0)])
    assert space.state_dict()["latest"] == [[0.5, 0.99], [0.25, 0.0]]


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"fit_every": 0}, {"explore": 1.5}, {"most": 1}, {"least": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AlpGmm(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="alp_gmm goes by places"):
        AlpGmm().open([Arm("a")], Context(0))
    monkeypatch.setitem(__import__("sys").modules, "sklearn.mixture", None)
    with pytest.raises(MissingExtra, match="tasks"):
        AlpGmm().open([Arm("a", point=(0.5,))], Context(0))


def frontier_toy(space: TaskSpace, seed: int, cells: int = 20, tasks: int = 3000) -> tuple[float, float]:
    """Return mean competence and the share of tasks that could not be learnt: a cell learns only beside one that is half mastered."""
    rng, skill, lost = np.random.default_rng(seed), np.zeros((cells, cells)), 0
    for _ in range(tasks):
        point = space.sample(1, rng)
        x, y = np.minimum((point[0] * cells).astype(int), cells - 1)
        if y >= cells // 2:
            lost += 1
        elif x == 0 or skill[x - 1, y] > 0.5:
            skill[x, y] = min(1.0, skill[x, y] + 0.2)
        space.update(point, skill[x : x + 1, y])
    return float(skill.mean()), lost / tasks


def test_the_frontier_is_found_and_the_unlearnable_left_alone() -> None:
    competence, lost = frontier_toy(AlpGmm(most=4).space(2, 0), 0)
    usual, usual_lost = frontier_toy(RandomPoint().space(2), 0)
    assert competence > 1.4 * usual
    assert lost < 0.3 < usual_lost


def test_a_base_says_nothing_of_signals() -> None:
    base = MixtureSpace(1, 0, 10, 0.2, 3)
    with pytest.raises(NotImplementedError):
        base.row([0.5], 1.0)
    with pytest.raises(NotImplementedError):
        base.interest(np.zeros((1, 2)), np.zeros((1, 2, 2)))
