"""What a budget buys, by hand and as properties."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.budget import Budget, Price
from outlay.errors import InputError
from outlay.planning.memory import Memory
from outlay.planning.plan import Plan, StageCost, make_plan

STEP = {"examples": 4.0, "tokens": 100.0, "flops": 1e6}


def stage(seconds: float = 2.0, share: float = 1.0, name: str = "main", **units: float) -> StageCost:
    return StageCost(name, units or STEP, seconds, seconds / 2, seconds * 2, share)


def plan(budget: Budget | str, *stages: StageCost, **more: Any) -> Plan:
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    settings: dict[str, Any] = {"basis": "formula", "parameters": 1000, "trainable": 1000, "micro_batch": 4, **more}
    return make_plan(budget, stages or (stage(),), **settings)


# ---- by hand -------------------------------------------------------------------------------------------------------------------------


def test_seconds() -> None:
    made = plan("11s")
    assert (made.steps, made.ends_by) == (5, "seconds")
    assert made.amounts == {"examples": 20.0, "tokens": 500.0, "seconds": 10.0, "flops": 5e6}
    assert made.interval == {
        "steps": (2.0, 11.0),
        "examples": (8.0, 44.0),
        "tokens": (200.0, 1100.0),
        "seconds": (8.0, 11.0),
        "flops": (2e6, 11e6),
    }
    assert (made.flops_per_step, made.tokens_per_step, made.step_seconds) == (1e6, 100.0, 2.0)


def test_the_tightest_limit_ends_it() -> None:
    made = plan("1h, 7 steps, 650 tokens, 1e9 flops")
    assert (made.steps, made.ends_by) == (6, "tokens")
    assert made.interval["tokens"] == (600.0, 600.0) and made.interval["seconds"] == (6.0, 24.0)


def test_reserve_and_what_is_spent_are_taken_off() -> None:
    made = plan("100s, 2000 tokens", reserve={"seconds": 12.0, "tokens": 500.0}, spent={"seconds": 80.0, "tokens": 100.0})
    assert (made.steps, made.ends_by) == (4, "seconds")
    made = plan("1h, 2000 tokens", reserve={"tokens": 500.0}, spent={"tokens": 101.0})
    assert (made.steps, made.ends_by) == (13, "tokens")


@pytest.mark.parametrize(("price", "bought"), [(Price(0.5, "seconds"), 4), (Price(0.01, "tokens"), 4)])
def test_money(price: Price, bought: int) -> None:
    # a step costs a dollar either way; the reserve of 2 s or 100 tokens another
    made = plan(Budget({"usd": 5.9}, price=price), reserve={"seconds": 2.0, "tokens": 100.0})
    assert (made.steps, made.ends_by, made.amounts["usd"]) == (bought, "usd", pytest.approx(4.0))


def test_stages_take_their_share_and_what_the_ones_before_left() -> None:
    made = plan(
        "1000 tokens", stage(share=1, name="a", tokens=300.0), stage(share=1, name="b", tokens=7.0), stage(share=2, name="c", tokens=50.0)
    )
    # a: 250 of 1000 buys nothing, b: a third of 1000 is 333, c: the 671 that are left
    assert [part.steps for part in made.stages] == [0, 47, 13]
    assert [part.share for part in made.stages] == [0.25, 0.25, 0.5]
    assert made.steps == 60 and made.amounts["tokens"] == 47 * 7 + 13 * 50
    assert not made.fits
    assert made.notes == ("stage a: not one step fits; a step costs 300 tokens",)
    assert made.tokens_per_step == pytest.approx(979 / 60)


def test_whole_units_are_divided_whole() -> None:
    made = plan("5 steps", stage(share=1, name="a"), stage(share=1, name="b"))
    assert [part.steps for part in made.stages] == [2, 3]


def test_notes_say_what_does_not_fit() -> None:
    memory = Memory(10, 10, 20, 3 * 2**30, int(3.2 * 2**30))
    made = plan("10s, 2GiB, 500 params", memory=memory, reserve={"seconds": 12.0}, notes=["from a table"])
    assert made.notes == (
        "memory: needs 3.2 GiB, ceiling 2 GiB",
        "params: 1k over the ceiling of 500",
        "seconds: the reserve of 12s leaves nothing of 10s",
        "from a table",
    )
    assert made.steps == 0 and not made.fits
    assert plan("10s, 4GiB, 1000 params", memory=memory).notes == ()
    assert plan("10s", spent={"seconds": 11.0}).notes == ("seconds: what is spent leaves nothing of 10s",)


def test_a_budget_that_nothing_uses_never_ends() -> None:
    made = plan("1000 labels")
    assert (made.steps, made.ends_by, made.amounts, made.interval) == (None, None, {}, {})
    assert made.notes == ("stage main never ends: limited is labels, and its steps use none of it",)
    assert made.to_json()["tokens"] is None
    assert plan(Budget({}, {"memory": 5.0})).steps is None
    assert any("no end" in line for line in made.lines())


def test_wrong_costs_are_refused() -> None:
    with pytest.raises(InputError, match="at least one stage"):
        make_plan(Budget.parse("1h"), [], basis="probe", parameters=1, trainable=1, micro_batch=1)
    for seconds, low, high in ((0.0, 0.0, 1.0), (1.0, 2.0, 3.0), (4.0, 2.0, 3.0), (1.0, 1.0, math.inf)):
        with pytest.raises(InputError, match="between low and high"):
            StageCost("main", STEP, seconds, low, high)
    with pytest.raises(InputError, match="share of stage 'main'"):
        stage(share=0.0)
    with pytest.raises(InputError, match="-1"):
        stage(tokens=-1.0)


# ---- as it is shown --------------------------------------------------------------------------------------------------------------------


def test_json_has_the_keys_that_a_run_directory_promises() -> None:
    memory = Memory(1, 2, 3, 4, 10)
    plain = json.loads(json.dumps(plan("11s", memory=memory, reserve={"seconds": 0.5}, notes=["a note"]).to_json()))
    assert plain["memory"] == {"weights": 1, "gradients": 2, "optimizer": 3, "activations": 4, "total": 10}
    wanted = {
        "parameters": 1000, "trainable": 1000, "micro_batch": 4, "flops_per_step": 1e6, "tokens_per_step": 100.0, "step_seconds": 2.0,
        "basis": "formula", "steps": 5, "tokens": 500.0, "seconds": 10.0, "flops": 5e6, "ends_by": "seconds", "reserve": {"seconds": 0.5},
        "notes": ["a note"],
    }  # fmt: skip
    assert {key: plain[key] for key in wanted} == wanted
    assert plain["interval"]["steps"] == [2.0, 10.0]
    assert plain["stages"][0]["name"] == "main" and "amounts" not in plain
    assert plan("11s", stage(examples=2.0)).to_json()["tokens"] == 0.0


def test_lines() -> None:
    made = plan("11s", memory=Memory(2**20, 2**20, 2**21, 2**22, 2**23), reserve={"seconds": 0.5}, notes=["a note"])
    assert made.lines() == [
        "model      1k parameters, 1k trained",
        "memory     8 MiB: weights 1 MiB, gradients 1 MiB, optimizer 2 MiB, activations 4 MiB (micro-batch 4)",
        "a step     100 tokens, 1M FLOPs, 2s (from a formula)",
        "buys       5 steps (2 steps to 10 steps), 20 examples (8 examples to 40 examples), 500 tokens (200 tokens to 1k tokens), "
        "10s (8s to 10s), 5M FLOPs (2M FLOPs to 10M FLOPs)",
        "ends by    seconds",
        "kept back  500ms",
        "note       a note",
    ]
    assert plan("9 steps", stage(name="a"), stage(name="b")).lines()[-2:] == [
        "stage a  4 steps, ends by steps",
        "stage b  5 steps, ends by steps",
    ]


# ---- properties -------------------------------------------------------------------------------------------------------------------------

amounts = st.floats(0.01, 1e6)
limits = st.dictionaries(st.sampled_from(["steps", "examples", "tokens", "seconds", "flops"]), amounts, min_size=1)
stages = st.builds(
    lambda units, seconds, spread, share: StageCost("s", units, seconds, seconds / spread, seconds * spread, share),
    st.dictionaries(st.sampled_from(["examples", "tokens", "flops"]), st.floats(0.01, 1e4)),
    st.floats(0.01, 1e3), st.floats(1, 3), st.floats(0.1, 5),
)  # fmt: skip


@given(limits, st.lists(stages, min_size=1, max_size=4), st.floats(0, 100))
def test_never_buys_more_than_any_limit_allows(limit: dict[str, float], costs: list[StageCost], kept: float) -> None:
    made = plan(Budget(limit), *costs, reserve={"seconds": kept, "tokens": kept})
    if made.steps is None:
        return
    for unit, most in limit.items():
        allowed = max(0.0, most - (kept if unit in ("seconds", "tokens") else 0.0))
        bought = made.steps if unit == "steps" else made.amounts.get(unit, 0.0)
        assert bought <= allowed * (1 + 1e-12)


@given(limits, stages, st.data())
def test_more_budget_never_buys_less(limit: dict[str, float], cost: StageCost, data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(sorted(limit)))
    less = plan(Budget(limit), cost)
    more = plan(Budget({**limit, unit: limit[unit] * data.draw(st.floats(1, 50))}), cost)
    assert (less.steps is None) == (more.steps is None)
    assert less.steps is None or more.steps is None or more.steps >= less.steps


@given(limits, stages)
def test_one_more_step_would_not_fit(limit: dict[str, float], cost: StageCost) -> None:
    made = plan(Budget(limit), cost)
    if made.steps is not None and made.ends_by is not None:
        per_step = {**cost.units, "steps": 1.0, "seconds": cost.seconds}[made.ends_by]
        most = math.floor(limit[made.ends_by]) if made.ends_by in ("steps", "examples", "tokens") else limit[made.ends_by]
        assert made.steps * per_step <= most < (made.steps + 1) * per_step


@given(st.integers(1, 10**6), st.integers(1, 10**5), st.floats(1e-3, 1e3))
def test_the_same_steps_in_any_unit(steps: int, tokens: int, seconds: float) -> None:
    cost = stage(seconds, tokens=float(tokens), flops=seconds * 3)
    made = plan(Budget({"steps": steps}), cost)
    assert made.steps == steps
    for unit in ("tokens", "seconds", "flops"):
        back = plan(Budget({unit: made.amounts[unit]}), cost)
        assert (back.steps, back.ends_by) == (steps, unit)
        assert back.amounts == made.amounts


@given(limits, st.lists(stages, min_size=1, max_size=3))
def test_the_interval_holds_the_middle(limit: dict[str, float], costs: list[StageCost]) -> None:
    made = plan(Budget(limit), *costs)
    for unit, (low, high) in made.interval.items():
        assert low <= (made.steps if unit == "steps" else made.amounts[unit]) <= high


def test_rounding_does_not_buy_a_step() -> None:
    # 29.699999999999996 / 3.3 is rounded to 9, and yet 9 of them are more
    assert plan(Budget({"flops": 29.699999999999996}), stage(flops=3.3)).steps == 8


def test_huge_budgets_end() -> None:
    assert plan("1e30 flops", stage(flops=1.0)).steps == int(1e30)
