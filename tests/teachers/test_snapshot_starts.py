"""Snapshot starts: clusters, shares, and a chain that is learnt sooner."""

import itertools

import numpy as np
import pytest

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.teachers import Asking
from outlay.teachers.snapshot_starts import SnapshotStarts, line_clusters
from outlay.testing.teachers import check_teacher


def asking(progress: float, count: int = 1, draw: int = 0) -> Asking:
    return Asking(count, progress, np.zeros(1), np.zeros(1), numpy_generator(0, "test", draw))


def test_contract() -> None:
    check_teacher(SnapshotStarts(clusters=3, until=0.5, starts=("kind/0",)), steps=3, long=10)


def spread_of(values: np.ndarray, labels: np.ndarray) -> float:
    return sum(float(((values[labels == k] - values[labels == k].mean()) ** 2).sum()) for k in np.unique(labels))


@pytest.mark.parametrize("clusters", [1, 2, 3, 4])
def test_clusters_are_the_best_of_all(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    for _ in range(5):
        values = np.round(rng.random(9), 1) + 100
        found = line_clusters(values, clusters)
        line = np.unique(values)
        cuts = itertools.combinations(line[1:], min(clusters, len(line)) - 1)
        best = min(spread_of(values, np.searchsorted(np.array(cut), values, side="right")) for cut in cuts)
        assert spread_of(values, found) == pytest.approx(best, abs=1e-9)
        assert sorted(set(found.tolist())) == list(range(min(clusters, len(line))))
        assert np.all(np.diff(found[np.argsort(values)]) >= 0)


def test_no_more_clusters_than_places() -> None:
    assert line_clusters(np.array([0.5, 0.5, 0.1]), 6).tolist() == [1, 1, 0]


def states(*places: float) -> list[Arm]:
    return [Arm("start"), *(Arm(f"state {i}", point=(place,)) for i, place in enumerate(places))]


def test_rare_and_common_phases_come_alike() -> None:
    lessons = SnapshotStarts(clusters=2, until=0.25).open(states(0.1, 0.9, 0.12, 0.11), Context(0))
    np.testing.assert_allclose(lessons.shares(asking(0.0)), [0, 1 / 6, 1 / 2, 1 / 6, 1 / 6])
    np.testing.assert_allclose(lessons.shares(asking(0.249)), [0, 1 / 6, 1 / 2, 1 / 6, 1 / 6])
    for progress in (0.25, 0.7, 1.0):
        assert lessons.shares(asking(progress)).tolist() == [1, 0, 0, 0, 0]


def test_one_cluster_is_uniform_and_no_time_is_the_usual_start() -> None:
    lessons = SnapshotStarts(clusters=1).open(states(0.1, 0.9, 0.12, 0.11), Context(0))
    np.testing.assert_allclose(lessons.shares(asking(0.0)), [0, 0.25, 0.25, 0.25, 0.25])
    assert SnapshotStarts(until=0.0).open(states(0.1, 0.9), Context(0)).shares(asking(0.0)).tolist() == [1, 0, 0]


def test_a_start_with_a_place_is_a_snapshot_too() -> None:
    arms = [Arm("a", point=(0.0,)), Arm("b", point=(1.0,)), Arm("c", point=(0.5,))]
    lessons = SnapshotStarts(clusters=1, starts=("a", "c")).open(arms, Context(0))
    np.testing.assert_allclose(lessons.shares(asking(0.0)), [1 / 3] * 3)
    assert lessons.shares(asking(0.5)).tolist() == [0.5, 0, 0.5]


def test_refusals() -> None:
    for wrong in ({"clusters": 0}, {"until": 1.5}, {"starts": ()}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SnapshotStarts(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no arm has that name"):
        SnapshotStarts().open([Arm("a", point=(0.5,))], Context(0))
    with pytest.raises(InputError, match="'a' has no place"):
        SnapshotStarts().open([Arm("start"), Arm("a")], Context(0))
    with pytest.raises(InputError, match="needs saved states"):
        SnapshotStarts().open([Arm("start")], Context(0))


def steps_until_solved(snapshots: bool, seed: int, length: int = 20, cap: int = 60_000, cut: int = 40) -> int:
    """Return the steps after which greedy Q-learning walks a chain from its usual start to the goal at its end, looked at before each episode."""
    rng, values, steps = np.random.default_rng(seed), np.zeros((length + 1, 2)), 0
    teacher = SnapshotStarts(until=1.0 if snapshots else 0.0)
    lessons = teacher.open(states(*(state / length for state in range(length))), Context(seed))
    for episode in itertools.count():
        if np.all(values[:length, 1] > values[:length, 0]) or steps >= cap:
            return steps
        arm = int(lessons.choose(asking(0.5, draw=1000 * seed + episode))[0])
        state = max(arm - 1, 0)
        for _ in range(cut):
            tied = values[state, 0] == values[state, 1] or rng.random() < 0.2
            action = int(rng.integers(2)) if tied else int(np.argmax(values[state]))
            after = min(state + 1, length) if action else max(state - 1, 0)
            target = 1.0 if after == length else 0.95 * values[after].max()
            values[state, action] += 0.5 * (target - values[state, action])
            state, steps = after, steps + 1
            if state == length:
                break
    raise AssertionError


def test_a_chain_is_learnt_in_fewer_steps_than_from_its_start() -> None:
    early, usual = ([steps_until_solved(snapshots, seed) for seed in range(4)] for snapshots in (True, False))
    assert max(early) < min(usual) and np.mean(early) < 0.5 * np.mean(usual), (early, usual)
