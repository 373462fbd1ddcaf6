"""The rank of many matrices out of one total: which of their scored parts are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outlay.allocators.solver import greedy
from outlay.arms import FloatArray


def keep_highest(scores: Sequence[FloatArray], total: int) -> list[NDArray[np.bool_]]:
    """Return for each matrix which of its parts are among the ``total`` with the highest scores of all, (parts,) of booleans.

    The next part of a matrix gains its score, best first, so the exact division is unit after unit where it gains most. Exactly
    ``total`` are kept: of equal scores those of the matrix that has kept fewest, then of the first, then the first part.

    Args:
        scores: of each matrix's parts, such as singular triplets, (parts,).
        total: how many are kept, at least 0 and at most all of them.
    """
    orders = [np.argsort(-each, kind="stable") for each in scores]
    counts = greedy(
        lambda i, n: float(scores[i][orders[i][n]]), len(scores), total, high=np.array([len(each) for each in scores], np.int64)
    )
    return [np.isin(np.arange(len(order)), order[:count]) for order, count in zip(orders, counts.tolist(), strict=True)]
