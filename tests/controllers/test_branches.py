"""Annealed branches: the trunk's position, when a branch leaves, what it costs, and a real run with intermediate budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import outlay
from outlay.branch import Branch, Landing
from outlay.controllers import AnnealedBranches, Plateau
from outlay.controllers.base import Brancher
from outlay.errors import InputError
from outlay.knob import Knob
from outlay.schedules import Linear, WarmupStableDecay
from outlay.testing import check_controller, record
from outlay.train import load_recipe
from outlay.train.journal import read_journal


def walk(
    part: AnnealedBranches, budget: int, refuse: tuple[str, ...] = (), overhead: int = 0
) -> tuple[list[float], dict[str, list[float]]]:
    """Spend ``budget`` steps as a run does; return the trunk's multipliers and each branch's. A branch's end costs ``overhead`` steps more."""
    trunk: list[float] = []
    branches: dict[str, list[float]] = {}
    spent = 0
    while spent < budget:
        branch = part.next_branch(spent / budget)
        if branch is None:
            trunk.append(part.value(spent / budget))
            spent += 1
            part.observe(record(spent, 1.0, progress=(spent - 1) / budget))
        elif branch.name in refuse:
            part.landed(branch, Landing("refused", spent / budget, spent / budget))
        else:
            began, steps = spent / budget, branches.setdefault(branch.name, [])
            assert branch.share is not None
            while spent / budget < began + branch.share - 1e-9:
                steps.append(branch.multiplier.value((spent / budget - began) / branch.share))
                spent += 1
            part.landed(branch, Landing("whole", began, spent / budget))
            spent += overhead
    return trunk, branches


def inverse_linear(x: float, floor: float = 0.1) -> float:
    return 1 / (x / floor + 1 - x)


def test_all_of_it_comes_out_of_the_budget() -> None:
    """T = 200 and budgets 50 and 100 on the way: 200 + 5 + 10 steps. The forks are after 45 and 90 steps of the trunk, its tail has 20."""
    part = AnnealedBranches((0.25, 0.5))
    trunk, branches = walk(part, 215)
    assert len(trunk) == 200 and {name: len(steps) for name, steps in branches.items()} == {"at-0.25": 5, "at-0.5": 10}
    assert trunk[:181] == [1.0] * 181
    assert trunk[180:] == [pytest.approx(inverse_linear(k / 20)) for k in range(20)]
    assert branches["at-0.25"] == [pytest.approx(inverse_linear(k / 5)) for k in range(5)]
    assert branches["at-0.5"] == [pytest.approx(inverse_linear(k / 10)) for k in range(10)]
    assert branches["at-0.5"][5] == pytest.approx(0.2 / 1.1)  # half way the inverse-linear decay is at 2 floor / (1 + floor)


@pytest.mark.parametrize("decay", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("at", [(0.5,), (0.25, 0.5), (0.1, 0.2, 0.4, 0.8)])
def test_the_total_is_the_trunk_and_the_decays(at: tuple[float, ...], decay: float) -> None:
    trunk, branches = walk(AnnealedBranches(at, decay=decay, shape="linear", floor=0.0), round(1000 * (1 + decay * sum(at))))
    assert len(trunk) == 1000 and [len(steps) for steps in branches.values()] == [round(1000 * decay * share) for share in at]


def test_a_fork_leaves_at_its_place_and_takes_the_trunk_s_level() -> None:
    part = AnnealedBranches((0.5,), trunk=Linear(), decay=0.2, shape="linear", floor=0.0)
    assert part.next_branch(79 / 220) is None
    branch = part.next_branch(80 / 220)
    assert branch is not None and branch.share == pytest.approx(20 / 220) and branch.name == "at-0.5"
    assert [branch.multiplier.value(q) for q in (0.0, 0.5, 1.0)] == [pytest.approx(0.6), pytest.approx(0.3), 0.0]
    assert (branch.account, branch.evaluate, branch.save, branch.rewind_data, branch.keep) == ("anneal", True, True, True, False)
    assert part.next_branch(80 / 220) == branch


def test_the_trunk_reads_its_own_position() -> None:
    """Without the branches' steps, whatever came in between: a linear trunk falls by a 200th a step."""
    trunk, _ = walk(AnnealedBranches((0.25, 0.5), trunk=Linear()), 215)
    assert trunk[:180] == [pytest.approx(1 - k / 200) for k in range(180)]


def test_what_a_branch_takes_beyond_its_steps_is_spread_over_the_rest() -> None:
    trunk, branches = walk(AnnealedBranches((0.5,), trunk=Linear(), shape="linear", floor=0.0), 210, overhead=42)
    assert len(branches["at-0.5"]) == 10 and len(trunk) == 90 + 68
    # 110 of 200 parts of the trunk are left for 68 steps
    assert trunk[90:100] == [pytest.approx(0.55 * (1 - k / 68)) for k in range(10)]
    assert trunk[-1] == pytest.approx(0.55 / 68 * (0.55 / 68 / 0.1))  # and its own tail comes to its end


def test_a_branch_that_is_refused_leaves_its_steps_to_the_trunk() -> None:
    trunk, branches = walk(AnnealedBranches((0.25, 0.5), trunk=Linear(), shape="linear"), 215, refuse=("at-0.25",))
    assert set(branches) == {"at-0.5"} and len(trunk) == 215 - len(branches["at-0.5"])
    # after 45 of 215, 170 steps are left for 0.775 of the trunk and the other branch
    rate = (0.775 + 0.05) / 170
    assert trunk[44:50] == [pytest.approx(1 - 44 / 200)] + [pytest.approx(0.775 - k * rate) for k in range(5)]


def test_a_branch_refused_at_the_very_end_is_not_asked_for_again() -> None:
    part = AnnealedBranches((0.5,))
    branch = part.next_branch(1.0)
    assert branch is not None and part.value(1.0) == pytest.approx(0.1)
    part.landed(branch, Landing("refused", 1.0, 1.0))
    assert part.next_branch(1.0) is None and part.value(1.0) == pytest.approx(0.1)


def test_holds_the_contract() -> None:
    values = check_controller(lambda: AnnealedBranches((0.5,), trunk=Linear()), [record(k, 1.0, progress=k / 10) for k in range(1, 8)])
    assert len(set(values)) == 1  # it branches when a run asks, not when it observes
    part = AnnealedBranches((0.5,))
    branch = part.next_branch(0.45)
    assert isinstance(part, Brancher) and isinstance(branch, Branch)
    part.landed(branch, Landing("whole", 0.45, 0.5))
    again = AnnealedBranches((0.5,))
    again.load_state_dict(json.loads(json.dumps(part.state_dict())))
    for one in (part, again):
        one.observe(record(1, 1.0, kind="evaluation", progress=0.6))  # no step: the trunk has not been gone on with
        assert one.position(0.7) == pytest.approx(0.45 * 1.05)
        one.observe(record(1, 1.0, progress=0.55))
        assert one.position(0.55) == pytest.approx(0.45 * 1.05) and one.position(1.0) == 1.0
    assert part.state_dict() == again.state_dict()


def test_a_controller_may_be_the_trunk() -> None:
    plateau = Plateau(factor=0.5, patience=0)
    knob = Knob(1.0, AnnealedBranches((0.5,), trunk=plateau))
    assert knob.controllers() == [knob.schedule, plateau]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"at": ()}, "at must name one share"),
        ({"at": (0.5, 1.0)}, r"at must lie in \(0, 1\) throughout, found \[0.5, 1.0\]"),
        ({"at": (0.5, 0.25)}, r"at must rise, found \[0.5, 0.25\]"),
        ({"at": (0.5, 0.5)}, "at must rise"),
        ({"at": (0.5,), "decay": 0.0}, r"decay must lie in \(0, 1\), found 0.0"),
        ({"at": (0.5,), "shape": "steep"}, "shape must be one of linear, .*, found 'steep'"),
        ({"at": (0.5,), "floor": 1.1}, r"floor must lie in \[0, 1\], found 1.1"),
        ({"at": (0.5,), "floor": 0.0}, "inverse_linear needs a floor > 0"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnnealedBranches(**fields)


# ---- in a run -----------------------------------------------------------------------------------------------------------------------


def digits(budget: str, lr: Any) -> Any:
    return load_recipe({
        "budget": budget, "model": {"mlp": {"inputs": 64, "classes": 10, "hidden": [16], "dropout": 0.1}}, "threads": 1,
        "stages": [{"source": {"images": {"name": "digits"}}, "objective": "classification", "knobs": {"lr": lr}}],
        "evaluate": {"exams": [{"held_out_loss": {"objective": "classification", "examples": 64}}], "start": False},
    })  # fmt: skip


def test_every_checkpoint_on_the_way_is_that_of_a_run_of_its_own(tmp_path: Path) -> None:
    """Budgets of 20, 40 and 80 steps from 86: each with the weights and the loss of a run that had that budget alone."""
    tail = {"at": [0.25, 0.5], "shape": "linear", "floor": 0.0}
    result = outlay.run(digits("86 steps", {"peak": 0.01, "schedule": {"annealed_branches": tail}}), tmp_path / "run")
    assert result.ended_by == "steps" and result.accounts["train"]["steps"] == 80 and result.accounts["anneal"]["steps"] == 6
    landed = {line["name"]: line for line in read_journal(tmp_path / "run") if line["kind"] == "branch" and line["what"] == "landed"}
    alone = {"warmup_stable_decay": {"warmup": 0.0, "decay": 0.1, "shape": "linear"}}
    for name, steps in (("at-0.25", 20), ("at-0.5", 40), (None, 80)):
        own = outlay.run(digits(f"{steps} steps", {"peak": 0.01, "schedule": alone}), tmp_path / f"{steps}")
        folder = tmp_path / "run" / (f"branches/{name}" if name else "model")
        metrics = landed[name]["metrics"] if name else result.metrics
        assert metrics == pytest.approx(own.metrics, rel=1e-5)
        assert metrics["held_out/loss"] > 0 and (folder / "model.safetensors").is_file()
    assert WarmupStableDecay(warmup=0.0, shape="linear").value(0.95) == pytest.approx(0.5)


def test_it_is_the_whole_schedule_of_its_knob() -> None:
    wrapped = {"peak": 0.01, "schedule": {"warmup": {"fraction": 0.1, "then": {"annealed_branches": {"at": [0.5]}}}}}
    with pytest.raises(InputError, match="must be the knob's schedule itself"):
        digits("10 steps", wrapped)
