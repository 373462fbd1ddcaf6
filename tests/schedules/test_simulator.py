"""Schedules on a problem whose expected loss is known exactly: no seed, no noise, every digit repeats.

Each schedule gets its own best peak of 45. What is compared is the final loss relative to linear decay to zero.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from outlay.schedules import (
    Constant,
    Cosine,
    CyclicCosine,
    Exponential,
    Linear,
    Rex,
    Sampled,
    Schedule,
    StepDecay,
    Uba,
    WarmupStableDecay,
    WsdS,
)
from outlay.testing import expected_loss, river_valley_loss, tuned_loss

WSD_10 = WarmupStableDecay(0.0, 0.1, "linear")
WSD_20 = WarmupStableDecay(0.0, 0.2, "one_minus_sqrt")

linear_loss = functools.cache(lambda steps: tuned_loss(Linear(), steps))


@pytest.mark.parametrize(
    ("steps", "schedule", "ratio"),
    [
        (50, Cosine(), 1.044),
        (50, Rex(), 1.003),
        (50, Uba(), 1.033),
        (50, Constant(), 1.152),
        (50, StepDecay(), 1.366),
        (50, WSD_10, 1.099),
        (50, WSD_20, 1.064),
        (200, Cosine(), 1.051),
        (200, Rex(), 1.018),
        (200, Uba(), 1.046),
        (200, Constant(), 1.371),
        (200, StepDecay(), 1.524),
        (200, WSD_10, 1.198),
        (200, WSD_20, 1.117),
        (1000, Cosine(), 1.037),
        (1000, Rex(), 1.054),
        (1000, Uba(), 1.057),
        (1000, Constant(), 1.833),
        (1000, StepDecay(), 1.689),
        (1000, WSD_10, 1.390),
        (1000, WSD_20, 1.219),
        (5000, Cosine(), 1.005),
        (5000, Rex(), 1.085),
        (5000, Uba(), 1.052),
        (5000, Exponential(5.0), 0.870),
        (5000, Constant(), 2.391),
        (5000, StepDecay(), 1.653),
        (5000, WSD_10, 1.578),
    ],
    ids=lambda value: repr(value).split("(")[0],
)
def test_final_loss_relative_to_linear(steps: int, schedule: Schedule, ratio: float) -> None:
    assert tuned_loss(schedule, steps) / linear_loss(steps) == pytest.approx(ratio, abs=6e-4)


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


# ---- several budget points in one run -------------------------------------------------------------------------------------------------

BUDGETS = (1250, 2500, 5000)
#: one peak serves all budget points: the best of these by the mean loss over them
PEAKS = np.geomspace(0.02, 1.5, 30).tolist()


def at_each_budget(schedule: Schedule, reading: float = 0.0) -> list[float]:
    """Losses at the budget points of one run; step t reads progress (t + reading) / 5000."""
    multipliers = [schedule.value((step + reading) / 5000) for step in range(5000)]
    losses = river_valley_loss(multipliers, PEAKS)[list(BUDGETS)]
    return losses[:, losses.mean(axis=0).argmin()].tolist()


def branched(budgets: tuple[int, ...]) -> list[float]:
    """Losses of WSD, whose tails are branches that the trunk does not take up: a run of its own for every budget."""
    wsd = WarmupStableDecay(0.0, 0.1, "inverse_linear", 0.1)
    losses = np.stack([river_valley_loss([wsd.value((t + 0.999) / steps) for t in range(steps)], PEAKS)[-1] for steps in budgets])
    return losses[:, losses.mean(axis=0).argmin()].tolist()


def test_in_a_river_valley_wsd_s_is_better_than_a_cosine_to_each_budget_point() -> None:
    # reading = 0.999 is the end of the step: the last one before a budget point stands at the floor
    assert at_each_budget(WsdS(), reading=0.999) == pytest.approx([0.0692, 0.0486, 0.0373], abs=6e-5)
    assert at_each_budget(CyclicCosine()) == pytest.approx([0.0908, 0.0611, 0.0455], abs=6e-5)
    assert at_each_budget(Constant()) == pytest.approx([0.209, 0.146, 0.110], abs=6e-4)


def test_in_a_river_valley_branches_are_better_only_while_their_steps_are_not_counted() -> None:
    assert branched(BUDGETS) == pytest.approx([0.0692, 0.0477, 0.0365], abs=6e-5)
    # its tails are thrown away: 375 steps of the first two budgets, so with 5000 steps in all, each budget is 1 / 1.075 of what it was
    shrunk = (1162, 2325, 4651)
    assert shrunk[2] + 0.1 * (shrunk[0] + shrunk[1]) == pytest.approx(5000, abs=1)
    equal = branched(shrunk)
    assert equal == pytest.approx([0.0724, 0.0493, 0.0374], abs=6e-5)
    assert all(one < other for one, other in zip(at_each_budget(WsdS(), reading=0.999), equal, strict=True))


@pytest.mark.parametrize("speed", [0.002, 0.02, 0.2])
def test_the_order_holds_in_slower_and_faster_rivers(speed: float) -> None:
    def mean(schedule: Schedule) -> float:
        losses = river_valley_loss([schedule.value(t / 1000) for t in range(1000)], PEAKS, speed)[[250, 500, 1000]]
        return float(losses.mean(axis=0).min())

    assert mean(WsdS()) < 0.9 * mean(CyclicCosine()) < mean(Constant())


def test_without_a_river_the_cosine_to_each_budget_point_is_better() -> None:
    """The quadratic has slow directions but no river: a tail of a tenth is too short, so which is better depends on the landscape."""

    def at_budgets(schedule: Schedule) -> np.ndarray:
        losses = expected_loss([schedule.value(t / 5000) for t in range(5000)], PEAKS)[list(BUDGETS)]
        return losses[:, losses.mean(axis=0).argmin()]

    assert (at_budgets(CyclicCosine()) < at_budgets(WsdS())).all()


def test_one_step_in_the_river_valley_by_hand() -> None:
    losses = river_valley_loss([0.5, 1.0], [0.8, 0.0], speed=0.1, noise=2.0, exponent=0.5)
    assert losses.shape == (3, 2)
    assert losses[:, 1].tolist() == [1.0, 1.0, 1.0]
    # eta = 0.4, 0.8: x = 0.04, 0.12; v = 0.32, 0.04 * 0.32 + 1.28 = 1.2928
    assert losses[:, 0] == pytest.approx([1.0, 1.04**-0.5 + 0.16, 1.12**-0.5 + 0.6464], rel=1e-14)
