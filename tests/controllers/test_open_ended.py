"""Open-ended: what is counted, where the tail begins and ends, and that no total enters before it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlay
from outlay.controllers import OpenEnded
from outlay.errors import InputError
from outlay.knob import Knob
from outlay.open_ended import Hold, Infinite, InverseRoot, Power
from outlay.record import Record
from outlay.schedules import WarmupStableDecay
from outlay.schedules.warmup_stable_decay import TAILS, Shape
from outlay.testing import check_controller, record


def walk(controller: OpenEnded, steps: int, total: int, tokens: float = 1.0) -> list[float]:
    """Values read by each of the first ``steps`` steps of a run of ``total``."""
    values = []
    for step in range(steps):
        values.append(controller.value(step / total))
        controller.observe(record(step + 1, progress=step / total, charges={"steps": 1.0, "tokens": tokens}))
    return values


# ---- counting ------------------------------------------------------------------------------------------------------------------------


def test_a_step_sees_what_was_spent_before_it() -> None:
    assert walk(OpenEnded(Hold(4.0)), 6, 100) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert walk(OpenEnded(Hold(4.0), before=3.0), 3, 100) == [0.75, 1.0, 1.0]


def test_counts_its_unit() -> None:
    assert walk(OpenEnded(Hold(40.0), "tokens"), 6, 100, tokens=10.0) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    by_uneven_batches = OpenEnded(InverseRoot(10.0), "examples")
    seen = []
    for step, examples in enumerate((5.0, 15.0, 20.0), start=1):
        seen.append(by_uneven_batches.value(0.1))
        by_uneven_batches.observe(record(step, charges={"steps": 1.0, "examples": examples}))
    assert [*seen, by_uneven_batches.value(0.1)] == pytest.approx([0.0, 0.5, math.sqrt(0.5), 0.5])


def test_counts_skipped_steps_and_no_evaluations() -> None:
    controller = OpenEnded(Hold(4.0), "tokens")
    controller.observe(record(1, math.nan, outcome="skipped", charges={"tokens": 1.0}))
    controller.observe(record(1, None, kind="evaluation", charges={"tokens": 100.0}))
    assert controller.value(0.0) == 0.25


def test_a_step_is_a_step_even_where_nothing_was_charged() -> None:
    controller = OpenEnded(Hold(4.0))
    controller.observe(record(1))
    assert controller.value(0.0) == 0.25


def test_refuses_steps_that_are_not_charged_its_unit() -> None:
    controller = OpenEnded(Hold(4.0), "tokens")
    with pytest.raises(InputError, match="in tokens needs steps that are charged tokens; these are charged examples, steps"):
        controller.observe(record(1, charges={"steps": 1.0, "examples": 8.0}))


def test_agrees_with_transformers_step_by_step() -> None:
    optimization = pytest.importorskip("transformers.optimization")
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = optimization.get_inverse_sqrt_schedule(optimizer, num_warmup_steps=10)
    for value in walk(OpenEnded(InverseRoot(10.0)), 60, 100):
        assert value == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-14)
        optimizer.step()
        peer.step()


# ---- the tail ------------------------------------------------------------------------------------------------------------------------


def test_the_linear_tail_by_hand() -> None:
    # the last 4 of 10 steps; the level at its start, after 6 steps, is 1 / sqrt(1 + 6 / 2) = 1/2
    controller = OpenEnded(InverseRoot(0.0, 2.0), decay=0.4, shape="linear", floor=0.1)
    values = [*walk(controller, 10, 10), controller.value(1.0)]
    assert values[:6] == pytest.approx([1 / math.sqrt(1 + n / 2) for n in range(6)])
    assert values[6:] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])


def test_the_geometric_tail_is_the_infinite_schedules_annealing() -> None:
    """eta_const (eta_min / eta_const)^u."""
    controller = OpenEnded(Infinite(2.0, 4.0, 0.5), decay=0.25, shape="geometric", floor=0.05)
    values = [*walk(controller, 40, 40), controller.value(1.0)]
    assert values[6:31] == [0.5] * 25
    assert values[30:] == pytest.approx([0.5 * (0.05 / 0.5) ** (k / 10) for k in range(11)], rel=1e-12)
    assert values[35] == pytest.approx(math.sqrt(0.5 * 0.05), rel=1e-12)


@pytest.mark.parametrize("shape", TAILS)
@pytest.mark.parametrize("decay", [0.1, 0.5])
def test_on_a_trunk_it_is_warm_up_stable_decay(shape: Shape, decay: float) -> None:
    controller, peer = OpenEnded(Hold(20.0), decay=decay, shape=shape, floor=0.2), WarmupStableDecay(0.1, decay, shape, 0.2)
    assert walk(controller, 200, 200) == pytest.approx([peer.value(step / 200) for step in range(200)], abs=1e-9)


@pytest.mark.parametrize("shape", [*TAILS, "geometric"])
def test_is_continuous_where_the_tail_begins(shape: Any) -> None:
    controller = OpenEnded(InverseRoot(0.0, 2.0), decay=0.5, shape=shape, floor=0.1)
    walk(controller, 6, 12)
    before, at, after = (controller.value(p) for p in (math.nextafter(0.5, 0.0), 0.5, math.nextafter(0.5, 1.0)))
    assert before == at == 0.5 and after == pytest.approx(0.5, abs=1e-7)


def test_the_level_stands_still_in_the_tail() -> None:
    """Steps of any size in the tail move it by their progress alone."""
    controller = OpenEnded(InverseRoot(0.0, 2.0), "tokens", decay=0.5, shape="linear")
    controller.observe(record(1, progress=0.0, charges={"tokens": 6.0}))
    for step, tokens in enumerate((1.0, 1e9, 0.0)):
        controller.observe(record(step, progress=0.5 + step / 10, charges={"tokens": tokens}))
        assert controller.value(0.75) == 0.25


def test_a_level_below_the_floor_is_kept() -> None:
    controller = OpenEnded(InverseRoot(0.0, 2.0), decay=0.4, shape="geometric", floor=0.8)
    assert walk(controller, 10, 10)[6:] == [0.5] * 4
    rising = OpenEnded(Hold(100.0), decay=0.9)
    assert walk(rising, 20, 20)[2:] == pytest.approx([0.02 * (1 - math.sqrt(k / 18)) for k in range(18)], abs=1e-9)


def test_without_a_tail_the_end_is_not_felt() -> None:
    controller = OpenEnded(Hold(2.0))
    assert walk(controller, 5, 5) == [0.0, 0.5, 1.0, 1.0, 1.0] and controller.value(1.0) == 1.0


# ---- no total ------------------------------------------------------------------------------------------------------------------------


@given(st.integers(20, 60), st.integers(1, 20), st.sampled_from([Hold(7.0), Infinite(5.0, 9.0), InverseRoot(4.0), Power(2.0, 3.0, a=0.1)]))
def test_another_total_does_not_change_the_beginning(total: int, more: int, schedule: Any) -> None:
    trunk = total * 3 // 4
    one, other = (walk(OpenEnded(schedule, decay=0.25), trunk, whole) for whole in (total, total + more))
    assert one == other


def test_goes_on_for_ever() -> None:
    controller = OpenEnded(Infinite(10.0, 20.0, 0.3), "tokens")
    for step in range(3):
        controller.observe(record(step, charges={"tokens": 1e9}))
        assert controller.value(0.5) == 0.3
    power = OpenEnded(Power(128.0), "tokens", before=1e12)
    assert 0.02 * power.value(0.5) == pytest.approx(128 * 4 * 1e12**-0.51, rel=1e-12)


def test_a_larger_budget_puts_it_back_on_the_trunk() -> None:
    """Without warming up again, and with a tail of its own from where it then begins."""
    controller = OpenEnded(InverseRoot(0.0, 2.0), decay=0.5, shape="linear")
    walk(controller, 10, 10)
    larger = OpenEnded(InverseRoot(0.0, 2.0), decay=0.5, shape="linear")
    larger.load_state_dict(controller.state_dict())
    assert larger.value(10 / 32) == pytest.approx(1 / math.sqrt(1 + 10 / 2))
    for step in range(10, 16):
        larger.observe(record(step, progress=step / 32))
    assert larger.value(16 / 32) == pytest.approx(1 / 3)
    assert larger.value(24 / 32) == pytest.approx(1 / 6)


def test_annealing_leaves_the_main_line_untouched() -> None:
    main = OpenEnded(Infinite(2.0, 4.0, 0.5), decay=0.25, shape="geometric", floor=0.05)
    walk(main, 20, 1000)
    branch = OpenEnded(Infinite(2.0, 4.0, 0.5), decay=0.25, shape="geometric", floor=0.05)
    branch.load_state_dict(main.state_dict())
    for step in range(10):
        branch.observe(record(21 + step, progress=0.75 + step / 40))
    assert branch.value(1.0) == pytest.approx(0.05) and main.value(0.02) == 0.5


# ---- contract ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["linear", "geometric"])
def test_holds_the_contract(shape: Any) -> None:
    records: list[Record] = [record(k + 1, progress=k / 12, charges={"tokens": 5.0 + k}) for k in range(12)]
    make = lambda: OpenEnded(InverseRoot(20.0), "tokens", decay=0.3, shape=shape, floor=0.05)  # noqa: E731
    values = check_controller(make, records)
    assert values[:3] == [0.0, 0.25, 0.55] and values[5] < 1.0


def test_is_found_by_name_and_in_a_knob() -> None:
    plain = {"schedule": {"infinite": {"warmup": 10, "cooldown": 20}}, "unit": "tokens", "decay": 0.1, "shape": "geometric", "floor": 0.1}
    made = outlay.make("controllers/open_ended", **plain)
    assert made == OpenEnded(Infinite(10.0, 20.0), "tokens", 0.1, "geometric", 0.1)
    assert Knob(3e-4, made).controllers() == [made]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unit": "seconds"}, "unit must be one of steps, examples, tokens, flops, rollouts, new_tokens, labels, found 'seconds'"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), found 1.0"),
        ({"shape": "root"}, "shape must be one of linear, .*, geometric, found 'root'"),
        ({"floor": 1.5}, r"floor must lie in \[0, 1\], found 1.5"),
        ({"shape": "geometric"}, "the tail geometric needs a floor > 0, found 0.0"),
        ({"shape": "inverse_linear"}, "the tail inverse_linear needs a floor > 0, found 0.0"),
        ({"before": -1.0}, "before must be finite and >= 0, found -1.0"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpenEnded(**fields)


def test_a_unit_that_the_source_does_not_spend_is_refused_before_the_run() -> None:
    plain = {
        "budget": "10 steps", "model": {"mlp": {"inputs": 64, "classes": 10}},
        "stages": [{"source": "images", "objective": "classification", "knobs": {"lr": {"peak": 0.1, "schedule": {"open_ended": {"unit": "tokens"}}}}}],
    }  # fmt: skip
    with pytest.raises(InputError, match=r"knobs.lr.*counts tokens, of which this stage's source spends none; it spends steps, .*examples"):
        outlay.load_recipe(plain)
    plain["stages"][0]["knobs"]["lr"]["schedule"]["open_ended"]["unit"] = "examples"  # type: ignore[index]
    outlay.load_recipe(plain)
