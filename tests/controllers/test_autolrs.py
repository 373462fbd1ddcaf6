"""AutoLRS: forecasts of planted curves, the search's account, and real runs that end on their budget."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import outlay
from outlay.branch import Branch, Landing
from outlay.controllers import AutoLRS
from outlay.controllers.autolrs import FAILED, fit_exponential, forecast, propose
from outlay.controllers.base import Brancher
from outlay.errors import InputError, MissingExtra
from outlay.reporting import Quiet
from outlay.testing import check_controller, record
from outlay.train import branching, load_recipe
from outlay.train.checkpoint import Snapshot
from outlay.train.journal import read_journal
from outlay.train.snapshots import snapshot

# ---- forecasts ----------------------------------------------------------------------------------------------------------------------


def curve(a: float, b: float, c: float, steps: int) -> list[float]:
    return [a * math.exp(b * x) + c for x in range(1, steps + 1)]


@settings(max_examples=60, deadline=None)
@given(a=st.floats(0.1, 5), decays=st.floats(0.3, 12), c=st.floats(0.05, 5), steps=st.sampled_from([16, 40, 100, 250]), falls=st.booleans())
def test_a_planted_curve_is_forecast(a: float, decays: float, c: float, steps: int, falls: bool) -> None:
    """Over the window the exponent runs from 0 to -decays; the forecast lies ten windows ahead."""
    a, b = a if falls else -a, -decays / steps
    assert forecast(curve(a, b, c, steps), 10 * steps) == pytest.approx(a * math.exp(10 * b * steps) + c, abs=1e-6)


def test_the_fit_finds_all_three_numbers() -> None:
    x = np.arange(1.0, 101.0)
    assert fit_exponential(x, 2.0 * np.exp(-0.03 * x) + 0.5) == pytest.approx((2.0, -0.03, 0.5), rel=1e-7)
    rough = fit_exponential(x, 2.0 * np.exp(-0.03 * x) + 0.5, refine=False)
    assert rough == pytest.approx((2.0, -0.03, 0.5), rel=0.2) and rough != pytest.approx((2.0, -0.03, 0.5), rel=1e-4)


@pytest.mark.parametrize("seed", range(10))
def test_outliers_hardly_matter(seed: int) -> None:
    """3 % of the losses are off by far, among those of the first half, where they are dropped."""
    draw = np.random.default_rng(seed)
    losses = np.array(curve(2.0, -0.03, 0.5, 100))
    losses[draw.choice(50, 3, replace=False)] += draw.choice([-0.4, 1.0, 3.0], 3)
    assert forecast(losses.tolist(), 1000) == pytest.approx(0.5, rel=0.05)
    x = np.arange(1.0, 101.0)
    a, b, c = fit_exponential(x, losses)
    assert abs(a * math.exp(1000 * b) + c - 0.5) > 1e-3  # without dropping them it is another forecast


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_borne(seed: int) -> None:
    noise = 0.02 * np.random.default_rng(seed).standard_normal(200)
    assert forecast((np.array(curve(2.0, -0.03, 0.5, 200)) + noise).tolist(), 2000) == pytest.approx(0.5, abs=0.03)


def test_what_shows_no_curve() -> None:
    assert forecast([2.0, 1.0, 1.5], 30) == 1.5 and forecast([1.0] * 40, 400) == pytest.approx(1.0)
    assert forecast([1.0, math.nan, 1.0, 1.0], 40) == forecast([math.inf] * 9, 90) == forecast([], 10) == FAILED == 1e6


# ---- proposals ----------------------------------------------------------------------------------------------------------------------


def test_the_mean_alone_goes_to_the_valley_and_the_deviation_alone_to_the_gap() -> None:
    explored = [[place, (place - 0.6) ** 2] for place in (0.0, 0.1, 0.2, 0.3, 0.45, 0.75, 0.9, 1.0)]
    assert propose(explored, kappa=0.0) == pytest.approx(0.6, abs=0.03)
    gap = [[place, 1.0 + 0.1 * place] for place in (0.0, 0.1, 0.2, 0.3, 0.9, 1.0)]
    assert propose(gap, kappa=1e6) == pytest.approx(0.6, abs=0.05)


def test_no_rate_is_tried_twice() -> None:
    explored = [[0.5, 1.0]]
    for _ in range(12):
        explored.append([propose(explored, kappa=0.0), 1.0])  # equal forecasts: the mean says nothing
    places = sorted(place for place, _ in explored)
    assert min(later - earlier for earlier, later in pairwise(places)) > 5e-4


# ---- the search ---------------------------------------------------------------------------------------------------------------------


def landing(losses: Sequence[float], end: Any = "whole", began: float = 0.0, ended: float = 0.0) -> Landing:
    steps = tuple(record(k, loss, outcome="ok" if math.isfinite(loss) else "skipped") for k, loss in enumerate(losses, 1))
    return Landing(end, began, ended, steps)


def tried(part: AutoLRS, branch: Branch) -> float:
    return branch.multiplier.value(0.3)


def search(part: AutoLRS, floor: Callable[[float], float], progress: float = 0.0) -> list[float]:
    """Land probes whose losses fall to ``floor`` of their rate until a rate is in use; return the rates."""
    rates = []
    while (branch := part.next_branch(progress)) is not None:
        rates.append(tried(part, branch))
        steps = branch.steps or 20
        part.landed(branch, landing(curve(1.0, -3 / steps, floor(rates[-1]), steps), began=progress, ended=progress))
    return rates


def valley(rate: float) -> float:
    return 1.0 + math.log10(rate / 0.1) ** 2


def test_a_search_settles_on_the_lowest_forecast() -> None:
    part = AutoLRS(probe=20)
    rates = search(part, valley)
    assert len(rates) == 10 == len(set(rates)) and all(0.01 <= rate <= 1.0 for rate in rates)
    assert part.value(0.3) == min(rates, key=valley) == pytest.approx(0.1, rel=0.5)
    assert max(rates) > 0.9 and min(rates) < 0.011  # with the paper's kappa it looks everywhere


def test_the_rate_is_used_for_tau_steps_and_then_both_lengths_double() -> None:
    part = AutoLRS(probe=5, horizon=4, probes=3, doublings=1)
    for stage, times in enumerate((1, 2, 2)):
        branch = part.next_branch(0.1)
        assert branch is not None and branch.steps == 5 * times and branch.leaves == (2 + 4) * 5 * times
        assert branch.name == f"search {stage + 1}, probe 1" and (branch.account, branch.rewind_data) == ("probe", False)
        search(part, valley, 0.1)
        for step in range(4 * 5 * times):
            assert part.next_branch(0.1) is None
            part.observe(record(step, 1.0))


def test_a_share_of_the_budget_is_a_length_too() -> None:
    part = AutoLRS(share=0.02, horizon=5, probes=2, doublings=1)
    branch = part.next_branch(0.0)
    assert branch is not None and (branch.steps, branch.share, branch.leaves) == (None, 0.02, pytest.approx(0.02 * 6))
    search(part, valley, 0.04)
    assert part.next_branch(0.139) is None
    second = part.next_branch(0.14)
    assert second is not None and second.share == 0.04


def test_the_warm_up_is_a_straight_line_to_the_middle_of_the_range() -> None:
    part = AutoLRS(low=0.01, high=1.0, warmup=0.2)
    assert [part.value(p) for p in (0.0, 0.1, 0.2, 0.9)] == [0.0, pytest.approx(0.05), pytest.approx(0.1), pytest.approx(0.1)]
    assert part.next_branch(0.19) is None and part.next_branch(0.2) is not None


def test_a_probe_that_breaks_is_a_million() -> None:
    part = AutoLRS(probe=8, probes=3)
    rates = []
    for number in range(3):
        branch = part.next_branch(0.0)
        assert branch is not None
        rates.append(tried(part, branch))
        part.landed(branch, landing([2.0, 1.0, math.nan], "diverged") if number != 1 else landing(curve(1.0, -0.2, 9.0, 8)))
        if number < 2:
            assert part.state_dict()["explored"][number][1] == pytest.approx(FAILED if number != 1 else 9.0, rel=1e-3)
    assert part.value(0.5) == rates[1]


def test_if_all_probes_break_the_smallest_rate_is_used() -> None:
    part = AutoLRS(probe=8, probes=3)
    rates = []
    while (branch := part.next_branch(0.0)) is not None:
        rates.append(tried(part, branch))
        part.landed(branch, landing([math.nan], "diverged"))
    assert part.value(0.5) == min(rates)


@pytest.mark.parametrize("end", ["refused", "cut"])
def test_what_cannot_be_paid_ends_the_searching(end: str) -> None:
    part = AutoLRS(probe=8, probes=3)
    branch = part.next_branch(0.0)
    assert branch is not None
    part.landed(branch, landing([], end))
    assert part.next_branch(0.0) is None and part.value(0.0) == pytest.approx(0.1)  # nothing was found: the middle
    half = AutoLRS(probe=8, probes=3)
    first = half.next_branch(0.0)
    assert first is not None
    rate = tried(half, first)
    half.landed(first, landing(curve(1.0, -0.3, 5.0, 8)))
    second = half.next_branch(0.0)
    assert second is not None
    half.landed(second, landing([1.0], end))
    assert half.next_branch(0.0) is None and half.value(0.0) == rate


def test_a_step_that_is_not_finite_calls_for_a_new_search() -> None:
    for part in (AutoLRS(probe=8, probes=2), AutoLRS(share=0.1, probes=2, horizon=4)):
        search(part, valley)
        assert part.next_branch(0.2) is None
        part.observe(record(1, math.nan, outcome="skipped"))
        assert part.next_branch(0.2) is not None


def test_the_seed_draws_the_first_rate_of_every_search() -> None:
    first = [part.next_branch(0.0) for part in (AutoLRS(), AutoLRS(), AutoLRS(seed=1))]
    assert first[0] == first[1] != first[2]


def test_holds_the_contract_and_goes_on_from_its_state() -> None:
    check_controller(AutoLRS, [record(k, 1.0, progress=k / 9) for k in range(1, 6)])
    part, state = AutoLRS(probe=8, probes=4), ""
    assert isinstance(part, Brancher)
    rates = []
    while (branch := part.next_branch(0.0)) is not None:
        again = AutoLRS(probe=8, probes=4)
        state = json.dumps(part.state_dict(), allow_nan=False)
        again.load_state_dict(json.loads(state))
        assert again.next_branch(0.0) == branch and json.dumps(part.state_dict()) == state
        for one in (part, again):
            one.landed(branch, landing(curve(1.0, -0.3, valley(tried(part, branch)), 8)))
        assert part.state_dict() == again.state_dict()
        rates.append(tried(part, branch))
    assert len(rates) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"probe": 3}, "probe must be >= 4 steps, found 3"),
        ({"share": 1.0}, r"share must lie in \(0, 1\), found 1.0"),
        ({"horizon": 0}, "horizon must be >= 1, found 0"),
        ({"probes": 1}, "probes must be >= 2, found 1"),
        ({"doublings": -1}, "doublings must be >= 0, found -1"),
        ({"low": 1.0}, "0 < low < high, found 1.0 and 1.0"),
        ({"low": 0.0}, "0 < low < high, found 0.0 and 1.0"),
        ({"kappa": -1.0}, "kappa must be finite and >= 0, found -1.0"),
        ({"warmup": 1.0}, r"warmup must lie in \[0, 1\), found 1.0"),
        ({"seed": -1}, "seed must be >= 0, found -1"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoLRS(**fields)


def test_without_its_packages_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sklearn" else object())
    with pytest.raises(MissingExtra, match=r"'scikit-learn'.*outlay\[tasks\]"):
        AutoLRS()


# ---- in a run -----------------------------------------------------------------------------------------------------------------------


def digits(budget: str, **fields: Any) -> Any:
    return load_recipe({
        "budget": budget, "model": {"mlp": {"inputs": 64, "classes": 10, "hidden": [16], "dropout": 0.1}}, "threads": 1,
        "stages": [{
            "source": {"images": {"name": "digits"}}, "objective": "classification",
            "knobs": {"lr": {"peak": 0.1, "schedule": {"autolrs": {"probe": 5, "horizon": 4, "probes": 3, "doublings": 0, **fields}}}},
        }],
        "checkpoints": {"every_steps": 10},
    })  # fmt: skip


def probes(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_journal(folder) if line["kind"] == "branch" and line["what"] == "landed"]


def test_a_run_searches_and_ends_on_its_budget(tmp_path: Path) -> None:
    """Two stages of 3 probes of 5 steps and 20 steps of use, and 4 steps that no other stage fits into."""
    result = outlay.run(digits("74 steps"), tmp_path / "run")
    assert result.ended_by == "steps" and result.spent["steps"] == result.steps == 74
    assert result.accounts["probe"]["steps"] == 2 * 3 * 5 and result.accounts["train"]["steps"] == 2 * 20 + 4
    journal = read_journal(tmp_path / "run")
    assert [line["end"] for line in probes(tmp_path / "run")] == ["whole"] * 6
    assert [line["what"] for line in journal if line["kind"] == "branch"][-1] == "refused"
    rates = [line["knobs"]["lr"] for line in journal if line["kind"] == "step"]
    tried = [
        [line["knobs"]["lr"] for line in journal if line.get("branch") == number and line["kind"] == "branch_step"]
        for number in range(1, 7)
    ]
    assert all(len(set(steps)) == 1 and 0.001 <= steps[0] <= 0.1 for steps in tried)
    assert len(set(rates[:20])) == len(set(rates[20:])) == 1
    assert rates[0] in [steps[0] for steps in tried[:3]] and rates[20] in [steps[0] for steps in tried[3:]]


def test_after_a_search_weights_and_optimizer_are_bit_by_bit_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Snapshot] = []
    put_back = branching._put_back

    def noting(run: Any, stage_run: Any, underway: Any, brancher: Any) -> None:
        seen.append(snapshot(run.assembly, stage_run))
        put_back(run, stage_run, underway, brancher)
        seen.extend((snapshot(run.assembly, stage_run), underway.fork))

    monkeypatch.setattr(branching, "_put_back", noting)
    outlay.run(digits("35 steps"), tmp_path / "run")
    ends, backs, forks = seen[0::3], seen[1::3], seen[2::3]
    assert len(ends) == 3
    for end, back, fork in zip(ends, backs, forks, strict=True):
        for group in ("model", "optimizer"):
            assert all(torch.equal(back.tensors[group][name], tensor) for name, tensor in forks[0].tensors[group].items())
            assert back.tensors[group].keys() == fork.tensors[group].keys()
        assert not all(torch.equal(end.tensors["model"][name], tensor) for name, tensor in fork.tensors["model"].items())
        assert back.plain["losses"] == fork.plain["losses"] == []
    # the data goes on: 15 steps of search and 20 of use have read all that 35 steps read
    assert [back.plain["cursor"]["cursor"] for back in backs] == [5 * 32, 10 * 32, 15 * 32]


def test_a_killed_search_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    class Deadly(Quiet):
        def step(self, record: Any, spent: Any, share: float, seconds_left: float | None) -> None:
            if record.step == 43:
                os.kill(os.getpid(), signal.SIGKILL)

    outlay.run(digits("70 steps"), tmp_path / "whole")
    folder = tmp_path / "killed"
    if not (process := os.fork()):
        outlay.run(digits("70 steps"), folder, display=Deadly())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    result = outlay.resume(folder)
    assert result.lost["steps"] == 3 and result.accounts["probe"]["steps"] == 30
    assert (folder / "model" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model" / "model.safetensors").read_bytes()


def test_a_run_in_shares_of_its_budget(tmp_path: Path) -> None:
    """Two stages of 3 probes of a fiftieth and a fifth of use; a step budget makes it exact."""
    result = outlay.run(digits("250 steps", share=0.02, horizon=10), tmp_path / "run")
    assert result.accounts["probe"]["steps"] == 3 * 3 * 5 and result.accounts["train"]["steps"] == 250 - 45


def test_a_recipe_is_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"knobs.lr.schedule.autolrs: probes must be >= 2, found 1"):
        digits("10 steps", probes=1)
