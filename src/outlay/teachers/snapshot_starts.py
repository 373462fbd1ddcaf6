"""Snapshot starts: begin where somebody better has been, then where everybody begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.schedules.base import require
from outlay.teachers.base import Asking, Stateless, drawn


@dataclass(frozen=True)
class SnapshotStarts:
    """Starts episodes from states that a teacher's good episodes went through, and after a share ``until`` of the budget from the usual ones.

    Every saved state is an arm whose place (one number, such as the teacher's value of it) says how far along it is. They are clustered by
    it; a cluster is drawn uniformly, then a state of it uniformly, so that rare and common phases come alike. With one cluster all states
    are alike. The clusters are the best k means on a line, found exactly by dynamic programming. Cutting episodes off some steps after a
    snapshot (the paper: 100, not counted as an end) is the environment's affair. What the teacher cost is not charged here.

    Args:
        clusters: most clusters, > 0; no more are formed than there are different places.
        until: share of the budget at which snapshots end, in [0, 1].
        starts: names of the arms that are the usual starts; one that has a place is a snapshot as well.
    """

    title: ClassVar[str] = "SnapshotRL"
    paper: ClassVar[Paper | None] = Paper(
        "2403.00673", "Snapshot Reinforcement Learning: Leveraging Prior Trajectories for Efficiency", 2024
    )

    clusters: int = 6
    until: float = 0.1
    starts: tuple[str, ...] = ("start",)

    def __post_init__(self) -> None:
        require(self.clusters > 0, f"clusters must be > 0, found {self.clusters}")
        require(0 <= self.until <= 1, f"until must be in [0, 1], found {self.until}")
        require(len(self.starts) > 0, "starts must name one arm at least, found none")

    def open(self, arms: Sequence[Arm], context: Context) -> SnapshotLessons:
        """Return the lessons.

        Raises:
            InputError: when a start is not among the arms, an arm that is no start has no place, or none has one.
        """
        names = [arm.name for arm in arms]
        for name in self.starts:
            if name not in names:
                raise InputError(
                    f"snapshot_starts begins at {name!r} in the end, but no arm has that name; name the usual starts in starts"
                )
        for arm in arms:
            if not arm.point and arm.name not in self.starts:
                raise InputError(f"snapshot_starts goes by one number for each saved state, but {arm.name!r} has no place")
        saved = [number for number, arm in enumerate(arms) if arm.point]
        if not saved:
            raise InputError("snapshot_starts needs saved states beside the usual starts: arms with a place of one number")
        labels = line_clusters(np.array([arms[number].point[0] for number in saved]), self.clusters)
        early = np.zeros(len(arms))
        early[saved] = 1 / (np.bincount(labels)[labels] * (labels.max() + 1))
        late = np.array([name in self.starts for name in names], np.float64)
        return SnapshotLessons(early, late / late.sum(), self.until)


@dataclass
class SnapshotLessons(Stateless):
    """Know the shares before and after."""

    early: FloatArray
    late: FloatArray
    until: float

    def shares(self, asking: Asking) -> FloatArray:
        """Return the same share for each cluster, evenly divided within; after ``until`` the usual starts alone."""
        return self.early if asking.progress < self.until else self.late

    def choose(self, asking: Asking) -> IntArray:
        """Return arms drawn by their shares."""
        return drawn(self.shares(asking), asking)


def line_clusters(values: FloatArray, clusters: int) -> IntArray:
    """Return the cluster of every value, (values,), counted from the smallest: the clusters of least total squared distance to their means.

    Args:
        values: numbers, (values,).
        clusters: how many, > 0; no more than there are different values.
    """
    different, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    number, clusters = len(different), min(clusters, len(different))
    centred = different - different.mean()
    weight, first, second = (np.concatenate([[0.0], np.cumsum(counts * centred**power)]) for power in range(3))
    i, j = np.arange(number + 1)[:, None], np.arange(number + 1)[None]
    inside = np.where(i < j, weight[j] - weight[i], 1.0)
    cost = np.where(i < j, second[j] - second[i] - (first[j] - first[i]) ** 2 / inside, np.inf)  # of values i .. j - 1 as one cluster
    best, cuts = cost[0], []
    for _ in range(clusters - 1):
        totals = best[:, None] + cost
        cuts.append(np.argmin(totals, axis=0))
        best = totals.min(axis=0)
    labels, end = np.zeros(number, np.int64), number
    for label in range(clusters - 1, 0, -1):
        start = int(cuts[label - 1][end])
        labels[start:end] = label
        end = start
    return np.asarray(labels[where.reshape(-1)], np.int64)
