"""Multigrid's long cycle: the shapes, what they cost, how the epochs are laid out, and the learning rate that goes with them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlay
from outlay.schedules import Cosine, LinearScaling, LongCycle
from outlay.schedules.multigrid import IMAGE_FACTORS, LONG_FACTORS, SHORT_FACTORS, TEXT_FACTORS, long_stages, whole_epochs
from outlay.testing import check_schedule

progress = st.floats(min_value=0, max_value=1)


def cycle(reads: str, **fields: Any) -> LongCycle:
    return LongCycle(**{"reads": reads, "steps": (0.8,), **fields})


@pytest.mark.parametrize("factors", [LONG_FACTORS, TEXT_FACTORS, IMAGE_FACTORS])
def test_the_batch_is_8_4_2_1_and_the_cost_constant(factors: Any) -> None:
    # one long cycle over 80% of the budget, in quarters, then the full shape
    middles = [0.1, 0.3, 0.5, 0.7, 0.9]
    batch, time, space = ([cycle(reads, factors=factors).value(p) for p in middles] for reads in ("batch", "time", "space"))
    assert batch == [8.0, 4.0, 2.0, 1.0, 1.0]
    assert list(zip(time, space, strict=True)) == [*factors, factors[-1]]
    assert [b * t * s * s for b, t, s in zip(batch, time, space, strict=True)] == pytest.approx([1.0] * 5, rel=1e-15)


@pytest.mark.parametrize(("frames", "pixels"), [(32, 224), (16, 112), (8, 28)])
def test_the_cost_of_whole_shapes_is_constant_up_to_rounding(frames: int, pixels: int) -> None:
    for p in (0.1, 0.3, 0.5, 0.7):
        time, space, batch = (cycle(reads).value(p) for reads in ("time", "space", "batch"))
        cost = batch * round(frames * time) * round(pixels * space) ** 2
        assert cost == pytest.approx(frames * pixels**2, rel=2.1 * 0.5 / (pixels * 0.5**0.5))


def test_every_stretch_has_its_long_cycle_in_equal_parts_of_the_iterations() -> None:
    schedule = LongCycle(steps=(0.4, 0.8))
    assert schedule.ends() == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0), rel=1e-12)
    assert [schedule.value(p) for p in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)] == [8, 4, 2, 1, 8, 4, 2, 1, 1, 1]
    # a short cycle beside it does not change the iterations
    assert LongCycle(steps=(0.4, 0.8), short=SHORT_FACTORS).ends() == pytest.approx(schedule.ends(), rel=1e-12)


def test_on_the_clock_of_examples_the_parts_go_with_the_average_batch() -> None:
    # 80% over batches 8, 4, 2, 1: 0.8 * (8, 4, 2, 1) / 15; fine-tuning in 0.2 of it times 4 / 15
    parts = [0.8 * 8 / 15, 0.8 * 4 / 15, 0.8 * 2 / 15, 0.8 / 15, 0.2 * 4 / 15]
    total = sum(parts)
    expected = [sum(parts[: i + 1]) / total for i in range(5)]
    assert cycle("batch", clock="examples").ends() == pytest.approx(expected, rel=1e-12)
    # with a short cycle the averages are 32/3, 16/3, 14/3 and 7/3, in all 23
    averages = [Fraction(32, 3), Fraction(16, 3), Fraction(14, 3), Fraction(7, 3)]
    parts = [float(Fraction(4, 5) * a / 23) for a in averages] + [float(Fraction(1, 5) * 4 / 23 * averages[-1])]
    expected = [sum(parts[: i + 1]) / sum(parts) for i in range(5)]
    assert cycle("batch", clock="examples", short=SHORT_FACTORS).ends() == pytest.approx(expected, rel=1e-12)


def test_the_stages_of_slowfast_on_kinetics() -> None:
    """A baseline of 239 epochs with falls at 94, 154 and 196: the ends that the authors' construction gives, with and without short cycle."""
    stages = long_stages([94, 154, 196], 239)
    assert whole_epochs(stages) == (73, 110, 142, 158, 205, 228, 248, 259, 291, 308, 322, 329, 358)
    assert [stage.fall for stage in stages] == [0] * 4 + [1] * 4 + [2] * 4 + [3]
    assert [stage.batch for stage in stages] == [8, 4, 2, 1] * 3 + [1]
    assert [stage.average_batch for stage in stages] == pytest.approx([32 / 3, 16 / 3, 14 / 3, 7 / 3] * 3 + [7 / 3], rel=1e-12)
    assert whole_epochs(long_stages([94, 154, 196], 239, short=())) == (87, 130, 152, 162, 218, 245, 259, 266, 305, 324, 334, 339, 358)


@given(
    st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True), st.floats(min_value=0.5, max_value=3), st.sampled_from([(), (0.5,)])
)
def test_the_construction(steps: list[int], factor: float, short: tuple[float, ...]) -> None:
    steps = sorted(steps)
    stages = long_stages(steps, 100, LONG_FACTORS, short, factor)
    assert math.fsum(stage.epochs for stage in stages) == pytest.approx(100 * factor, rel=1e-12)
    assert abs(whole_epochs(stages)[-1] - 100 * factor) <= 0.5 + 1e-9
    assert [stage.iterations * stage.average_batch for stage in stages] == pytest.approx([stage.epochs for stage in stages], rel=1e-12)
    # iterations stand in the proportions of the baseline's epochs, the fine-tuning phase among them
    falls = [math.fsum(stage.iterations for stage in stages if stage.fall == fall) for fall in range(len(steps) + 1)]
    epochs = [end - start for start, end in zip([0, *steps], [*steps, 100], strict=True)]
    assert [one / sum(falls) for one in falls] == pytest.approx([one / 100 for one in epochs], rel=1e-9)
    for fall in range(len(steps)):
        quarters = [stage.iterations for stage in stages if stage.fall == fall]
        assert quarters == pytest.approx([quarters[0]] * 4, rel=1e-12)


def test_the_papers_rate_by_hand() -> None:
    schedule = cycle("rate", steps=(0.4, 0.8))
    points = {0.0: 8.0, 0.1: 4.0, 0.2: 2.0, 0.3: 1.0, 0.4: 0.8, 0.5: 0.4, 0.6: 0.2, 0.7: 0.1, 0.8: 0.1, 0.89: 0.1, 0.9: 0.01, 1.0: 0.01}
    assert {p: schedule.value(p) for p in points} == pytest.approx(points, rel=1e-12)
    assert cycle("rate", gamma=1.0).value(0.95) == 1.0


@given(progress)
def test_any_profile_is_scaled_by_the_batch(p: float) -> None:
    batch = cycle("batch")
    assert LinearScaling(batch, Cosine()).value(p) / batch.value(p) == pytest.approx(Cosine().value(p), rel=1e-12, abs=1e-15)


def test_from_a_recipe() -> None:
    made = outlay.make("schedules/long_cycle", reads="time", factors=[[0.5, 1], [1, 1]], steps=[0.5], clock="examples")
    assert made == LongCycle("time", ((0.5, 1.0), (1.0, 1.0)), (0.5,), clock="examples")
    assert [made.value(p) for p in (0.0, 0.9)] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reads": "size"}, "reads must be batch, time, space or rate, found 'size'"),
        ({"clock": "steps"}, "clock must be iterations or examples, found 'steps'"),
        ({"factors": ()}, "factors must hold at least one"),
        ({"factors": ((1.0, 1.5),)}, r"every factor must lie in \(0, 1\], found"),
        ({"short": (0.0,)}, r"every short factor must lie in \(0, 1\], found"),
        ({"steps": ()}, "at least one of them, found"),
        ({"steps": (0.5, 0.4)}, r"steps must rise within \(0, 1\)"),
        ({"steps": (0.5, 1.0)}, r"steps must rise within \(0, 1\)"),
        ({"gamma": 0.0}, r"gamma must lie in \(0, 1\], found 0.0"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LongCycle(**fields)


@pytest.mark.parametrize("reads", ["batch", "time", "space", "rate"])
def test_holds_the_contract(reads: Any) -> None:
    check_schedule(LongCycle(reads))
    check_schedule(LongCycle(reads, TEXT_FACTORS, (0.3, 0.9), SHORT_FACTORS, "examples", 0.5))
