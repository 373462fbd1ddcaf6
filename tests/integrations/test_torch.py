"""The scheduler: torch's protocol, a budget's clock."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from outlay import Budget, InputError, Knob, Meter
from outlay.controllers import AnnealedBranches, AutoLRS, Plateau
from outlay.integrations.torch import BudgetScheduler, GroupKnobs
from outlay.schedules import Constant, Linear, Rex, Warmup
from outlay.testing import FakeClock


def adamw(**changes: Any) -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    groups = [
        {"params": model[0].parameters(), "lr": 1e-2, "weight_decay": 0.1},
        {"params": model[1].parameters(), "lr": 1e-3, "weight_decay": 0.0},
    ]
    return model, torch.optim.AdamW(groups, **changes)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> list[list[float]]:
    """Take steps on one batch; return every group's rate in each."""
    rates = []
    for _ in range(steps):
        model(torch.ones(2, 3)).square().mean().backward()
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return rates


def test_each_group_follows_its_own_rate_and_the_floor_holds_past_the_end() -> None:
    model, optimizer = adamw()
    scheduler = BudgetScheduler(optimizer, Rex(floor=0.1), "4 steps")
    rates = train(model, optimizer, scheduler, 7)
    # m(p) = 0.1 + 0.9 (1 - p) / (1 - p / 2) at 0, 1/4, 1/2, 3/4
    multipliers = [1.0, 0.1 + 0.9 * 6 / 7, 0.1 + 0.9 * 2 / 3, 0.1 + 0.9 * 2 / 5, 0.1, 0.1, 0.1]
    for rate, multiplier in zip(rates, multipliers, strict=True):
        assert rate == pytest.approx([1e-2 * multiplier, 1e-3 * multiplier], rel=1e-14)
    assert scheduler.get_last_lr() == pytest.approx([1e-3, 1e-4], rel=1e-14)
    assert scheduler.ended and scheduler.ended_by == "steps" and scheduler.progress == 1.0


def test_any_field_of_the_groups_can_be_driven() -> None:
    model, optimizer = adamw(betas=(0.8, 0.99))
    knobs = {"weight_decay": Knob(0.5, Linear()), "beta1": Knob(0.9, Constant()), "eps": 1e-6, "lr": Knob(0.1, Linear())}
    scheduler = BudgetScheduler(optimizer, knobs, "2 steps")
    train(model, optimizer, scheduler, 1)
    first, second = optimizer.param_groups
    assert (first["weight_decay"], second["weight_decay"]) == (0.25, 0.0)  # the exempt group stays exempt
    assert first["betas"] == second["betas"] == (0.9, 0.99)
    assert first["eps"] == second["eps"] == 1e-6
    assert (first["lr"], second["lr"]) == (0.05, pytest.approx(0.005))  # the peak is the largest group's, proportions are kept
    assert scheduler.values == {"weight_decay": 0.25, "beta1": 0.9, "eps": 1e-6, "lr": 0.05}


def test_momentum_of_sgd_and_a_field_that_is_0_everywhere() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
    knobs = GroupKnobs([optimizer], {"momentum": Linear(), "weight_decay": Knob(0.2, Linear())})
    assert knobs.write(0.5) == {"momentum": 0.25, "weight_decay": 0.1}
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    with pytest.raises(InputError, match="'weight_decay' stands at 0, which a schedule cannot change; give its peak"):
        GroupKnobs([torch.optim.SGD(model.parameters(), lr=1.0)], {"weight_decay": Linear()})


def test_wrong_input_costs_nothing() -> None:
    _, optimizer = adamw()
    with pytest.raises(InputError, match="no group of the optimizer has a field 'weight_deca'; did you mean 'weight_decay'"):
        BudgetScheduler(optimizer, {"weight_deca": Linear()}, "2 steps")
    with pytest.raises(InputError, match="limits nothing that is used up"):
        BudgetScheduler(optimizer, Linear(), "24GiB")
    with pytest.raises(InputError, match="'lr' is driven by a Knob, a schedule, a controller or a number, found 'rex'"):
        BudgetScheduler(optimizer, {"lr": "rex"}, "2 steps")  # type: ignore[dict-item]
    assert optimizer.param_groups[0]["lr"] == 1e-2


def test_a_rate_that_a_graph_captured_is_written_in_place() -> None:
    model = nn.Linear(3, 1)
    rate = torch.tensor(0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    scheduler = BudgetScheduler(optimizer, Linear(), "2 steps")
    train(model, optimizer, scheduler, 1)
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.25


def test_tokens_and_a_clock_are_clocks_too() -> None:
    model, optimizer = adamw()
    scheduler = BudgetScheduler(optimizer, Linear(), "100 tokens")
    scheduler.charge(tokens=30, examples=2)
    assert train(model, optimizer, scheduler, 2)[1][0] == pytest.approx(0.7e-2)
    scheduler.charge(tokens=70)
    scheduler.step()
    assert scheduler.get_last_lr() == [0.0, 0.0] and scheduler.ended_by == "tokens"
    clock = FakeClock()
    timed = BudgetScheduler(optimizer, {"weight_decay": Knob(1.0, Linear())}, "$2 at $0.1/s", reserve=5.0, clock=clock)
    clock.advance(7.0)
    timed.step()
    # 20 s are bought, 5 s with a margin of 5 % are kept back
    assert timed.progress == pytest.approx(7.0 / (20.0 - 5.0 * 1.05), rel=1e-12) and not timed.ended
    clock.advance(0.8)  # another step of 7 s would not fit any more
    timed.step()
    assert timed.ended_by == "usd"


def test_a_meter_of_your_own_is_read_and_not_charged() -> None:
    model, optimizer = adamw()
    meter = Meter(Budget.parse("10 steps"))
    scheduler = BudgetScheduler(optimizer, Linear(), meter)
    train(model, optimizer, scheduler, 3)
    assert meter.spent("steps") == 0 and scheduler.progress == 0.0
    meter.charge("train", steps=4)
    scheduler.step()
    assert scheduler.progress == 0.4 and scheduler.state_dict()["meter"] is None


def test_controllers_observe() -> None:
    model, optimizer = adamw()
    controller = Plateau(patience=0, factor=0.5)
    scheduler = BudgetScheduler(optimizer, Warmup(0.0, controller), "9 steps")
    for loss in (1.0, 2.0, 0.5):
        scheduler.observe(loss=loss)
    train(model, optimizer, scheduler, 1)
    assert scheduler.get_last_lr()[0] == 5e-3
    assert controller.value(0.0) == 1.0  # yours is left as it was, so that it can serve another run


def test_going_on_from_a_state_equals_never_having_stopped() -> None:
    def begin() -> tuple[nn.Module, torch.optim.AdamW, BudgetScheduler]:
        model, optimizer = adamw()
        return model, optimizer, BudgetScheduler(optimizer, {"lr": Rex(), "weight_decay": Plateau(patience=0, factor=0.5)}, "12 steps")

    model, optimizer, scheduler = begin()
    train(model, optimizer, scheduler, 5)
    for loss in (1.0, 2.0):
        scheduler.observe(loss=loss)
    saved = json.loads(json.dumps(scheduler.state_dict())), model.state_dict(), optimizer.state_dict()
    saved = (saved[0], {n: t.clone() for n, t in saved[1].items()}, torch.load(_through(saved[2]), weights_only=True))
    whole = train(model, optimizer, scheduler, 9)
    other_model, other_optimizer, other = begin()
    other_model.load_state_dict(saved[1])
    other_optimizer.load_state_dict(saved[2])
    other.load_state_dict(saved[0])
    assert train(other_model, other_optimizer, other, 9) == whole
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other_model.parameters(), strict=True))
    assert other.meter.spent("steps") == 14 and other.last_epoch == scheduler.last_epoch == 14
    assert other_optimizer.param_groups[0]["weight_decay"] == 0.05


def _through(state: Any) -> Any:
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_accelerate_takes_it() -> None:
    from accelerate import Accelerator

    model, optimizer = adamw()
    scheduler = BudgetScheduler(optimizer, Linear(), "4 steps")
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer, prepared = accelerator.prepare(model, optimizer, scheduler)
    for _ in range(4):
        with accelerator.accumulate(model):
            accelerator.backward(model(torch.ones(2, 3)).square().mean())
            optimizer.step()
            prepared.step()
            optimizer.zero_grad()
    # four batches are two optimizer steps
    assert scheduler.meter.spent("steps") == 2 and prepared.get_last_lr() == [5e-3, 5e-4]


def test_as_torch_where_torch_has_the_same_schedule() -> None:
    model, optimizer = adamw()
    mine = train(model, optimizer, BudgetScheduler(optimizer, Linear(), "6 steps"), 8)
    model, optimizer = adamw()
    torch_s = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=6)
    for rate, expected in zip(mine, train(model, optimizer, torch_s, 8), strict=True):
        assert rate == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("brancher", [AutoLRS(), AnnealedBranches((0.5,)), Knob(0.1, AutoLRS())])
def test_a_controller_that_looks_ahead_is_refused(brancher: Any) -> None:
    """Nobody here could train its branches."""
    with pytest.raises(InputError, match="'lr': .* looks ahead on branches, which only outlay's own loop can make; use outlay.run"):
        BudgetScheduler(adamw()[1], brancher, "10 steps")


def test_a_class_in_place_of_an_object_is_refused() -> None:
    with pytest.raises(InputError, match=r"'lr' is driven by an object, found the class Rex; write Rex\(\.\.\.\)"):
        BudgetScheduler(adamw()[1], {"lr": Rex}, "10 steps")  # type: ignore[dict-item]
