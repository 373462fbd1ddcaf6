"""Field curves: domains whose held-out losses are power laws of what was read of them, and which are forgotten while others are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from outlay.arms import FloatArray

if TYPE_CHECKING:
    from outlay.teachers.mixing_training import Trajectory

#: (losses so far (t + 1, fields), mixtures so far (t, fields), progress in [0, 1]) -> the next mixture (fields,)
Policy = Callable[[FloatArray, FloatArray, float], FloatArray]


@dataclass(frozen=True)
class FieldCurves:
    """Loss of field f: L_f = (1 + n_f / scale_f)^-exponent_f. A step with the mixture a moves n_f <- n_f (1 - forgetting_f (1 - a_f)) + a_f.

    So each field has a curve of falling returns, and reading one interferes with the others.

    Args:
        scales: reading after which a loss begins to fall, in steps, > 0.
        exponents: how fast it falls then, > 0.
        known: reading that each field starts with, >= 0.
        forgetting: share of a field that a step spent elsewhere takes away, in [0, 1).
    """

    scales: tuple[float, ...]
    exponents: tuple[float, ...]
    known: tuple[float, ...]
    forgetting: tuple[float, ...]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> FieldCurves:
        """Return two random fields as in continued pretraining: one that is known and one that is not, in any order."""
        order = rng.permutation(2)
        scales, exponents = rng.uniform(1, 8, 2), rng.uniform(0.3, 1.2, 2)
        known = np.array([rng.uniform(5, 20), 0.0])[order]
        return cls(tuple(scales.tolist()), tuple(exponents.tolist()), tuple(known.tolist()), tuple(rng.uniform(0.0, 0.08, 2).tolist()))

    def run(self, policy: Policy, steps: int) -> Trajectory:
        """Return the run of a policy."""
        from outlay.teachers.mixing_training import Trajectory

        scales, exponents, forgetting = (np.array(part) for part in (self.scales, self.exponents, self.forgetting))
        read = np.array(self.known)
        losses, mixtures = [(1 + read / scales) ** -exponents], np.zeros((0, len(read)))
        for step in range(steps):
            mixture = policy(np.array(losses), mixtures, step / steps)
            read = read * (1 - forgetting * (1 - mixture)) + mixture
            mixtures = np.concatenate([mixtures, mixture[None]])
            losses.append((1 + read / scales) ** -exponents)
        return Trajectory(mixtures, np.array(losses))


def still(mixture: Sequence[float]) -> Policy:
    """Return the policy that always takes the same mixture."""
    fixed = np.array(mixture, np.float64)
    return lambda losses, mixtures, progress: fixed


def wandering(rng: np.random.Generator) -> Policy:
    """Return a policy of random mixtures, each held for a random while."""

    def policy(losses: FloatArray, mixtures: FloatArray, progress: float) -> FloatArray:
        stays = len(mixtures) > 0 and rng.random() < 0.6
        return mixtures[-1] if stays else rng.dirichlet(np.ones(losses.shape[1]))

    return policy


def leaning(rng: np.random.Generator) -> Policy:
    """Return a policy that gives more to the fields with the larger losses, by a random factor and with noise."""
    strength = rng.uniform(2, 20)

    def policy(losses: FloatArray, mixtures: FloatArray, progress: float) -> FloatArray:
        scores = strength * losses[-1] + rng.normal(0, 0.3, losses.shape[1])
        weights = np.exp(scores - scores.max())
        return np.asarray(weights / weights.sum(), np.float64)

    return policy
