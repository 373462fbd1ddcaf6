"""Schedules on a problem whose expected loss is known exactly: no seed, no noise, every digit repeats.

Each schedule gets its own best peak of 45. What is compared is the final loss relative to linear decay to zero.
"""

from __future__ import annotations

import numpy as np
import pytest

from outlay.schedules import Constant, Cosine, Linear, Rex, Sampled, Schedule, Sequence, WarmupStableDecay
from outlay.testing import expected_loss, tuned_loss

STEPS_30_60_90 = Sequence((Constant(1.0), Constant(0.1), Constant(0.01), Constant(0.001)), (0.3, 0.3, 0.3, 0.1))
WSD_10 = WarmupStableDecay(0.0, 0.1, "linear")
WSD_20 = WarmupStableDecay(0.0, 0.2, "one_minus_sqrt")


@pytest.mark.parametrize(
    ("steps", "schedule", "ratio"),
    [
        (50, Cosine(), 1.044),
        (50, Rex(), 1.003),
        (50, Constant(), 1.152),
        (50, STEPS_30_60_90, 1.366),
        (50, WSD_10, 1.099),
        (200, Cosine(), 1.051),
        (200, Rex(), 1.018),
        (200, Constant(), 1.371),
        (200, STEPS_30_60_90, 1.524),
        (200, WSD_10, 1.198),
        (200, WSD_20, 1.117),
        (1000, Cosine(), 1.037),
        (1000, Rex(), 1.054),
        (1000, Constant(), 1.833),
        (1000, WSD_20, 1.219),
    ],
    ids=lambda value: repr(value).split("(")[0],
)
def test_final_loss_relative_to_linear(steps: int, schedule: Schedule, ratio: float) -> None:
    assert tuned_loss(schedule, steps) / tuned_loss(Linear(), steps) == pytest.approx(ratio, abs=5e-4)


@pytest.mark.parametrize("steps", [50, 200])
def test_reading_the_profile_rarely_costs(steps: int) -> None:
    once, twice, five_times, at_every_step = (tuned_loss(Sampled(Rex(), times), steps) for times in (1, 2, 5, steps))
    assert once > twice > five_times > at_every_step
    assert once == tuned_loss(Constant(), steps)
    assert at_every_step == tuned_loss(Rex(), steps)


def test_one_step_by_hand() -> None:
    """v = (1 - eta lam)^2 + eta^2 lam for every curvature lam = 1/i; loss = 1/2 sum lam v."""
    eta = 0.5 * 0.25
    lam = 1.0 / np.arange(1, 201)
    losses = expected_loss([0.25], [0.5, 0.0])
    assert losses.shape == (2, 2)
    assert losses[0] == pytest.approx([0.5 * lam.sum()] * 2, rel=1e-14)
    assert losses[1] == pytest.approx([0.5 * (lam * ((1 - eta * lam) ** 2 + eta**2 * lam)).sum(), 0.5 * lam.sum()], rel=1e-14)


def test_without_noise_the_constant_rate_of_one_solves_the_steepest_direction() -> None:
    lam = 1.0 / np.arange(1, 201)
    losses = expected_loss([1.0] * 7, [1.0], noise=0.0)[:, 0]
    assert losses[-1] == pytest.approx(0.5 * (lam * (1 - lam) ** 14).sum(), rel=1e-12)


def test_noise_sets_the_level_at_which_a_constant_rate_stands() -> None:
    """At rest v = eta^2 s lam / (1 - (1 - eta lam)^2) = eta s / (2 - eta lam)."""
    lam = 1.0 / np.arange(1, 201)
    for noise in (0.5, 2.0):
        end = expected_loss([1.0] * 20000, [0.5], noise)[-1, 0]
        assert end == pytest.approx(0.5 * (lam * 0.5 * noise / (2 - 0.5 * lam)).sum(), rel=1e-9)
