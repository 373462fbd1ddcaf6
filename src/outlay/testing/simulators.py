"""Simulators: losses that are known exactly for any sequence of learning rates, without a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def river_valley_loss(
    multipliers: Sequence[float], peaks: Sequence[float], speed: float = 0.02, noise: float = 1.0, exponent: float = 1.0
) -> np.ndarray:
    """Return the expected loss in a river valley: a slow way down along the river, noise up and down its banks.

    With eta_t = peak * multipliers[t]: the place along the river x <- x + eta_t speed, x = 0 at the start; the second moment across it
    v <- (1 - eta_t)^2 v + eta_t^2 noise, v = 0 at the start; loss = (1 + x)^-exponent + v / 2. A large learning rate makes way and hides
    it under noise; decay shows it. It is the landscape that arXiv 2410.05192 assumes, so it tells what follows from the assumption and
    not whether a network has that landscape.

    Args:
        multipliers: of the learning rate, one a step.
        peaks: learning rates that are tried side by side.
        speed: way along the river per unit of learning rate, >= 0.
        noise: variance of the gradient noise across the river, >= 0.
        exponent: how fast the loss falls along the river, > 0.

    Returns:
        The losses before the first and after each step, of shape (steps + 1, peaks).
    """
    import numpy as np

    place, moment = np.zeros(len(peaks)), np.zeros(len(peaks))
    losses = [np.ones(len(peaks))]
    for multiplier in multipliers:
        rate = np.asarray(peaks) * multiplier
        place = place + rate * speed
        moment = (1.0 - rate) ** 2 * moment + rate**2 * noise
        losses.append((1.0 + place) ** -exponent + 0.5 * moment)
    return np.stack(losses)
