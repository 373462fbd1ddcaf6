"""Multigrid's short cycle: three shapes in turn, whatever else happens in between."""

from __future__ import annotations

from typing import Any

import pytest

import outlay
from outlay.controllers import ShortCycle
from outlay.knob import Knob
from outlay.schedules import Constant, Linear, LongCycle
from outlay.testing import check_controller, record


def walk(controller: ShortCycle, steps: int, progress: float = 0.0) -> list[float]:
    """The values of the first updates."""
    values = []
    for step in range(1, steps + 1):
        values.append(controller.value(progress))
        controller.observe(record(step))
    return values


def test_at_full_size_the_batch_is_4_2_1() -> None:
    assert walk(ShortCycle("batch"), 7) == [4, 2, 1, 4, 2, 1, 4]
    sizes = walk(ShortCycle("size"), 7)
    assert sizes == pytest.approx([0.5, 0.5**0.5, 1.0] * 2 + [0.5], rel=1e-15)


@pytest.mark.parametrize(("power", "factors"), [(2.0, (0.5, 0.5**0.5)), (1.0, (0.25, 0.5)), (3.0, (0.5,))])
def test_the_cost_is_constant(power: float, factors: tuple[float, ...]) -> None:
    batch = walk(ShortCycle("batch", factors=factors, power=power), 6)
    size = walk(ShortCycle("size", factors=factors, power=power), 6)
    assert [b * s**power for b, s in zip(batch, size, strict=True)] == pytest.approx([1.0] * 6, rel=1e-12)


def test_inside_the_long_cycle() -> None:
    long = {reads: LongCycle(reads, steps=(0.8,)) for reads in ("batch", "space")}
    for progress, batches, sizes in (
        (0.1, [16, 8, 8], [0.5, 0.5**0.5, 0.5**0.5]),
        (0.3, [8, 4, 4], [0.5, 0.5**0.5, 0.5**0.5]),
        (0.5, [8, 4, 2], [0.5, 0.5**0.5, 1.0]),
        (0.9, [4, 2, 1], [0.5, 0.5**0.5, 1.0]),
    ):
        assert walk(ShortCycle("batch", long["space"], long["batch"]), 3, progress) == batches
        assert walk(ShortCycle("size", long["space"], long["batch"]), 3, progress) == pytest.approx(sizes, rel=1e-15)


def test_a_factor_above_the_long_cycles_size_is_taken_as_it() -> None:
    assert walk(ShortCycle("size", Constant(0.6)), 3) == [0.5, 0.6, 0.6]
    assert walk(ShortCycle("batch", Constant(0.6), Constant(3.0)), 3) == [3, 3, 3]  # round(1.44) = 1
    assert walk(ShortCycle("batch", Constant(0.25), Constant(16.0)), 3) == [16, 16, 16]


def test_evaluations_do_not_count_and_skipped_updates_do() -> None:
    controller = ShortCycle()
    controller.observe(record(1, kind="evaluation", loss=None))
    assert controller.value(0.0) == 4
    controller.observe(record(1, outcome="skipped"))
    assert controller.value(0.0) == 2


def test_the_largest_batch_comes_first() -> None:
    """What is planned before the first update must fit the largest."""
    assert max(walk(ShortCycle(), 3)) == ShortCycle().value(0.0)


def test_from_a_recipe_and_found_in_a_knob() -> None:
    made = outlay.make("controllers/short_cycle", reads="size", size={"long_cycle": {"reads": "space"}}, factors=[0.5])
    assert made == ShortCycle("size", LongCycle("space"), factors=(0.5,))
    assert Knob(8.0, made).controllers() == [made]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reads": "space"}, "reads must be batch or size, found 'space'"),
        ({"factors": ()}, "factors must hold at least one size, found none"),
        ({"factors": (1.5,)}, r"every factor must lie in \(0, 1\], found \(1.5,\)"),
        ({"power": 0.0}, "power must be > 0, found 0.0"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShortCycle(**fields)


def test_holds_the_contract() -> None:
    records = [record(step, 1.0, progress=step / 10) for step in range(1, 6)]
    assert check_controller(lambda: ShortCycle("batch"), records) == [4, 2, 1, 4, 2, 1]
    assert check_controller(lambda: ShortCycle("size", Linear(0.6, 1.0), Linear()), records)[0] == 0.5
