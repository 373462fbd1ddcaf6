"""Convex copies: misspelled copies of an answer that lie outermost become training data of a reward model (arXiv 2309.16155)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from outlay.rng import numpy_generator
from outlay.schedules.base import require


def convex_copies(
    text: str, embed: Callable[[Sequence[str]], np.ndarray], copies: int = 5, share: float = 0.05, *, seed: int, number: int = 0
) -> list[str]:
    """Return the misspelled copies whose embeddings are corners of the convex hull of all of them, in the plane of their two principal axes.

    Args:
        text: an answer.
        embed: returns the embeddings of texts, (texts, width).
        copies: how many are made, >= 1.
        share: of its words that are misspelled, in (0, 1]; at least one.
        seed: root of the random stream.
        number: the answer's number, which tells its stream from others'.
    """
    require(copies >= 1, f"copies must be >= 1, found {copies}")
    made = [misspelled(text, share, seed=seed, number=number * copies + i) for i in range(copies)]
    return [made[place] for place in hull_corners(plane(np.asarray(embed(made), dtype=float)))]


def misspelled(text: str, share: float, *, seed: int, number: int = 0) -> str:
    """Return the text with two neighbouring letters swapped in a share of its words, at least one, as far as words have two letters that
    differ. Drawn from the stream (seed, "rewards/convex_copies", number)."""
    require(0 < share <= 1, f"share must lie in (0, 1], found {share}")
    draw = numpy_generator(seed, "rewards/convex_copies", number)
    words = text.split(" ")
    able = [place for place, word in enumerate(words) if any(a != b for a, b in pairwise(word))]
    count = min(len(able), max(1, round(share * len(words))))
    for place in sorted(draw.choice(len(able), size=count, replace=False)) if able else ():
        word = words[able[place]]
        spots = [spot for spot in range(len(word) - 1) if word[spot] != word[spot + 1]]
        spot = spots[draw.integers(len(spots))]
        words[able[place]] = word[:spot] + word[spot + 1] + word[spot] + word[spot + 2 :]
    return " ".join(words)


def plane(points: np.ndarray) -> np.ndarray:
    """Return points (n, width) in the plane of their first two principal axes, (n, 2); missing axes are 0."""
    centred = points - points.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    found = centred @ axes.T
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def hull_corners(points: np.ndarray) -> list[int]:
    """Return the places of the corners of the convex hull of points (n, 2), rising; points on an edge or met before are none."""
    scale = float(np.abs(points).max(initial=0.0)) or 1.0
    order = sorted(range(len(points)), key=lambda place: (*points[place], place))
    order = [place for i, place in enumerate(order) if i == 0 or np.abs(points[place] - points[order[i - 1]]).max() > 1e-12 * scale]
    if len(order) < 3:
        return sorted(order)

    def half(places: Sequence[int]) -> list[int]:
        chain: list[int] = []
        for place in places:
            while len(chain) >= 2 and _turn(points[chain[-2]], points[chain[-1]], points[place]) <= 1e-12 * scale * scale:
                chain.pop()
            chain.append(place)
        return chain[:-1]

    return sorted({*half(order), *half(order[::-1])})


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Return twice the area of the triangle: > 0 where a, b, c turn left."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
