"""Moments in few bits: those rounded to nearest stall, those rounded stochastically are right on average and the same after resuming."""

from __future__ import annotations

import pytest
import torch

from outlay.formats import Bf16, Dynamic8, Format
from outlay.inner_rules import Adam
from outlay.inner_rules.moments import read_moment, rounding_stream
from outlay.layout import Slots


def second_moment(rule: Adam, form: Format, count: int, steps: int, square: float) -> torch.Tensor:
    """v after so many equal squares, started at 1."""
    slots = Slots({}, "")
    slots.fill(rule.layout((count,)), torch.zeros(count))
    for part, kept in form.encode(torch.ones(count)).items():
        slots[f"v.{part}"] = kept
    for step in range(1, steps + 1):
        rule.direction(slots, torch.full((count,), square**0.5), step)
    return read_moment(slots, "v", form, (count,))


def test_a_second_moment_in_bfloat16_stalls_to_nearest_and_moves_right_on_average() -> None:
    # a step changes v by 0.001 (1.5 - v): less than half of bfloat16's step at 1, 2^-7
    expected = 1.5 - 0.5 * 0.999**400
    nearest = second_moment(Adam(states=Bf16()), Bf16(), 4000, 400, 1.5)
    assert torch.equal(nearest, torch.ones(4000))
    drawn = second_moment(Adam(states=Bf16(), rounding="stochastic"), Bf16(), 4000, 400, 1.5)
    # a walk of 400 steps with variance below 2^-7 0.0005 each has a deviation below 0.04; the mean of 4000 of them below 0.0007
    assert abs(float(drawn.mean()) - expected) < 0.003
    assert float(drawn.std()) < 0.06


def test_a_decaying_second_moment_leaves_its_value_only_when_rounded_stochastically() -> None:
    rule = Adam(states=Dynamic8(), second=Dynamic8(signed=False))
    # the block's largest element is exact, so one that does not decay stands before those that do
    for rounding, low, high in (("nearest", 0.99, 1.01), ("stochastic", 0.62, 0.72)):
        made = Adam(states=rule.states, second=rule.second, rounding=rounding)  # type: ignore[arg-type]
        slots = Slots({}, "")
        slots.fill(made.layout((256,)), torch.zeros(256))
        start = torch.full((256,), 0.5)
        start[0] = 1.0
        assert made.second is not None
        for part, kept in made.second.encode(start).items():
            slots[f"v.{part}"] = kept
        before = read_moment(slots, "v", made.second, (256,))
        g = torch.zeros(256)
        g[0] = 1.0
        for step in range(1, 401):
            made.direction(slots, g, step)
        left = read_moment(slots, "v", made.second, (256,))[1:] / before[1:]
        assert low < float(left.mean()) < high  # 0.999^400 = 0.67


def test_the_stream_follows_from_step_and_shape() -> None:
    def drawn(name: str, step: int, *shape: int) -> list[float]:
        generator = rounding_stream("stochastic", name, step, torch.zeros(shape))
        assert generator is not None
        return torch.rand(4, generator=generator).tolist()

    first = drawn("m", 1, 3, 4)
    assert first == drawn("m", 1, 3, 4)
    assert all(first != other for other in (drawn("v", 1, 3, 4), drawn("m", 2, 3, 4), drawn("m", 1, 12), drawn("m", 1, 4, 3)))
    assert rounding_stream("nearest", "m", 1, torch.zeros(3)) is None


@pytest.mark.parametrize("form", [Bf16(), Dynamic8()], ids=["bf16", "dynamic8"])
def test_without_rounding_to_do_both_ways_agree(form: Format) -> None:
    """Exactly representable moments: beta1 = beta2 = 0 and gradients +-1."""
    g = torch.tensor([1.0, -1.0, 1.0])
    found = []
    for rounding in ("nearest", "stochastic"):
        rule = Adam(0.0, 0.0, states=form, rounding=rounding)  # type: ignore[arg-type]
        slots = Slots({}, "")
        slots.fill(rule.layout((3,)), g)
        rule.direction(slots, g, 1)
        found.append([read_moment(slots, name, form, (3,)).tolist() for name in ("m", "v")])
    assert found[0] == found[1] == [[1, -1, 1], [1, 1, 1]]
