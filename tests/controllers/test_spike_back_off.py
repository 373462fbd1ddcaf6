"""Spike back-off: what counts as a spike, how deep it goes, and that recovery is exact."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.controllers import SpikeBackOff
from outlay.record import Record
from outlay.testing import check_controller, record

#: median 1, median absolute deviation 0.1
CALM = [0.9, 1.1, 1.0, 0.9, 1.1]


def settled(**fields: Any) -> SpikeBackOff:
    controller = SpikeBackOff(**({"factor": 0.25, "recover": 4, "deviations": 2.0, "window": 5, "least": 5} | fields))
    for step, loss in enumerate(CALM, start=1):
        controller.observe(record(step, loss))
    return controller


def value_after(controller: SpikeBackOff, *losses: float) -> float:
    for loss in losses:
        controller.observe(record(1, loss))
    return controller.value(0.5)


def test_a_spike_is_beyond_so_many_robust_deviations_above_the_median() -> None:
    # 1 + 2 * 1.4826 * 0.1
    assert value_after(settled(), 1.2964) == 1.0
    assert value_after(settled(), 1.2966) == 0.25
    assert value_after(settled(deviations=3.0), 1.2966) == 1.0
    assert value_after(settled(), 1.2966 - 2 * 0.2966) == 1.0  # a fall is none


def test_the_slack_bounds_the_deviation_from_below() -> None:
    def flat() -> SpikeBackOff:
        controller = SpikeBackOff(factor=0.25, recover=4, deviations=2.0, window=5, least=5, slack=0.1)
        value_after(controller, *[2.0] * 5)
        return controller

    assert value_after(flat(), 2.39) == 1.0
    assert value_after(flat(), 2.41) == 0.25


def test_recovers_geometrically_and_exactly() -> None:
    controller = settled()
    values = [value_after(controller, 9.0), *(value_after(controller, 1.0) for _ in range(5))]
    # 0.25^(4/4), ^(3/4), ^(2/4), ^(1/4), 1
    assert values == pytest.approx([0.25, 0.25**0.75, 0.5, math.sqrt(0.5), 1.0, 1.0], rel=1e-15)
    assert values[4:] == [1.0, 1.0]


def test_spikes_add_up_to_a_limit() -> None:
    controller = settled(most=2)
    assert value_after(controller, 9.0) == 0.25
    assert value_after(controller, 99.0) == 0.0625
    for _ in range(3):
        controller.observe(record(1, None, outcome="skipped"))
    assert controller.value(0.5) == 0.0625
    # the limit is on what is owed: eight calm steps pay all back
    assert value_after(controller, *[1.0] * 7) == pytest.approx(0.25**0.25) and value_after(controller, 1.0) == 1.0


@pytest.mark.parametrize("loss", [math.nan, math.inf, None, 1.0])
def test_a_skipped_step_is_a_spike_whatever_its_loss(loss: float | None) -> None:
    controller = SpikeBackOff(factor=0.25)
    controller.observe(record(1, loss, outcome="skipped"))
    assert controller.value(0.5) == 0.25
    assert controller.state_dict()["window"] == ([1.0] if loss == 1.0 else [])


def test_waits_until_it_knows_enough() -> None:
    controller = SpikeBackOff(factor=0.25, window=5, least=3)
    assert value_after(controller, 1.0, 1.0, 100.0) == 1.0
    assert value_after(controller, 200.0) == 0.25


def test_earlier_spikes_do_not_hide_later_ones() -> None:
    """A mean and a standard deviation of these would let the second pass."""
    controller = settled(window=9, most=9)
    assert value_after(controller, 50.0) == 0.25
    assert value_after(controller, 40.0) == 0.0625


def test_a_level_that_stays_becomes_normal() -> None:
    controller = settled()
    value_after(controller, *[5.0, 5.1, 4.9, 5.0, 5.1] * 3)
    assert controller.value(0.5) == 1.0
    assert value_after(controller, 9.0) == 0.25


def test_may_watch_the_gradient_norm() -> None:
    controller = SpikeBackOff("gradient_norm", factor=0.25, window=5, least=2)
    for norm in (1.0, 1.1, 1.0, 30.0):
        controller.observe(record(1, 1.0, gradient_norm=norm))
    assert controller.value(0.5) == 0.25


def test_steps_without_the_measure_pay_back_all_the_same() -> None:
    controller = settled(metric="loss", recover=2)
    value_after(controller, 9.0)
    controller.observe(record(1, None))
    assert controller.value(0.5) == 0.5
    controller.observe(record(1, 99.0, kind="evaluation"))
    assert controller.value(0.5) == 0.5


@given(st.lists(st.one_of(st.floats(0.1, 10), st.just(math.nan)), max_size=60), st.integers(1, 5), st.integers(1, 4))
def test_stays_within_its_bounds(losses: list[float], recover: int, most: int) -> None:
    controller = SpikeBackOff(factor=0.5, recover=recover, window=6, least=2, deviations=1.0, most=most)
    for loss in losses:
        controller.observe(record(1, loss, outcome="ok" if math.isfinite(loss) else "skipped"))
        assert 0.5**most <= controller.value(0.5) <= 1.0
    assert len(controller.state_dict()["window"]) <= 6


def test_holds_the_contract() -> None:
    losses = [1.0, 1.1, 0.9, 1.0, 7.0, 1.0, math.nan, 1.0, 1.0, 1.0, 1.0]
    records: list[Record] = [
        record(k, x, outcome="ok" if math.isfinite(x) else "skipped", progress=k / 20) for k, x in enumerate(losses, start=1)
    ]
    values = check_controller(lambda: SpikeBackOff(factor=0.25, recover=2, window=5, least=3), records)
    assert values == [1.0, 1.0, 1.0, 1.0, 1.0, 0.25, 0.5, 0.125, 0.25, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factor": 1.0}, r"factor must lie in \(0, 1\), found 1.0"),
        ({"recover": 0}, "recover must be >= 1, found 0"),
        ({"deviations": 0.0}, "deviations must be finite and > 0, found 0.0"),
        ({"window": 1}, "window must be >= 2, found 1"),
        ({"least": 60}, r"least must lie in \[2, window = 50\], found 60"),
        ({"slack": -0.1}, "slack must be finite and >= 0, found -0.1"),
        ({"most": 0}, "most must be >= 1, found 0"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpikeBackOff(**fields)
