"""The pace: runs end on their limit, never over it, whatever the noise; progress never falls; stages share and roll over."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.budget import Budget
from outlay.meter import Meter
from outlay.testing import FakeClock
from outlay.train.pace import Go, LivePace, Reserve, affords_evaluation, ending_unit, flow_limits
from outlay.train.replaying import RecordedPace

#: nothing to finish
NOTHING = Reserve(slack=0.0)


def live(budget: str, clock: FakeClock | None = None, reserve: Reserve | None = None, share: float = 1.0) -> tuple[Meter, LivePace]:
    meter = Meter(Budget.parse(budget), clock or FakeClock())
    return meter, LivePace(meter, {}, share, reserve or NOTHING)


def spend(meter: Meter, pace: LivePace, **cost: float) -> int:
    """Take steps of one cost until the stage ends; return how many."""
    steps, before = 0, 0.0
    while (go := pace.begin(False, False)) is not None and pace.fits({"steps": 1.0, **cost}):
        assert before <= go.progress <= 1.0
        before = go.progress
        meter.charge("train", steps=1.0, **cost)
        pace.lap()
        steps += 1
    return steps


# ---- seconds ------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(seed=st.integers(0, 2**32), step=st.floats(1e-3, 1e3), steps=st.floats(12.0, 400.0), reserved=st.sampled_from([0.0, 0.1]))
def test_seconds_are_kept_whatever_the_noise(seed: int, step: float, steps: float, reserved: float) -> None:
    """Steps of +-20 % noise: never over, within one step of the limit, progress never falling."""
    clock, noise = FakeClock(), random.Random(seed)
    limit = step * steps / (1 - reserved)
    reserve = Reserve(seconds={"end": reserved * limit}, margin=1.0, slack=0.0)
    meter = Meter(Budget({"seconds": limit}), clock)
    pace = LivePace(meter, {}, 1.0, reserve)
    end, taken, before = limit - reserve.amount("seconds"), 0, 0.0
    assert pace.ends() == {"seconds": pytest.approx(end)}
    while (go := pace.begin(False, False)) is not None:
        assert before <= go.progress <= 1.0 and go.progress == pytest.approx(clock.now / end)
        before, taken = go.progress, taken + 1
        clock.advance(step * noise.uniform(0.8, 1.2))
        pace.lap()
    assert pace.ended_by == "seconds"
    assert clock.now <= end
    assert end - clock.now <= step * (1.2 + 2.0 / min(taken, LivePace.WINDOW)) * (1 + 1e-9)


def test_the_forecast_is_the_slowest_and_a_stall_does_not_count() -> None:
    clock = FakeClock()
    _, pace = live("1h", clock)
    assert pace.forecast() == 0.0
    for seconds in (30.0, 1.0, 1.2, 1.0, 0.8, 1.0):  # the first one warms up
        pace.begin(False, False)
        clock.advance(seconds)
        pace.lap()
    assert pace.forecast() == pytest.approx(1.2 + 5 * (1.2 - 0.8) / 5)
    clock.advance(500.0)  # an evaluation between steps is none of them
    pace.begin(False, False)
    clock.advance(1.0)
    pace.lap()
    assert pace.forecast() == pytest.approx(1.2 + 5 * (1.2 - 0.8) / 6)
    pace.lap()  # without a step begun
    assert pace.forecast() == pytest.approx(1.2 + 5 * (1.2 - 0.8) / 6)
    for _ in range(LivePace.WINDOW):
        pace.begin(False, False)
        clock.advance(0.25)
        pace.lap()
    assert pace.forecast() == pytest.approx(0.25)


def test_a_save_between_two_begins_is_no_part_of_the_step() -> None:
    clock = FakeClock()
    _, pace = live("1h", clock)
    assert pace.begin(True, False) == Go(0.0, save=True)
    clock.advance(60.0)
    go = pace.begin(False, False)
    assert go == Go(60 / 3600)
    clock.advance(1.0)
    pace.lap()
    assert pace.forecast() == 1.0


def test_a_forecast_given_beforehand_holds_back_the_first_step() -> None:
    clock = FakeClock(8.0)
    meter = Meter(Budget.parse("10s"), clock, began=0.0)
    unaware, warned = LivePace(meter, {}, 1.0, NOTHING), LivePace(meter, {}, 1.0, NOTHING)
    warned.expect(3.0)
    assert unaware.begin(False, False) == Go(0.8)
    assert warned.begin(False, False) is None and warned.ended_by == "seconds"


def test_where_steps_are_short_a_pace_aims_short_of_the_limit() -> None:
    """Half a percent may be left unspent: the aim is its middle, as far as a step leaves room for that."""
    clock = FakeClock()
    _, pace = live("1000s", clock, Reserve(seconds={"end": 100.0}, margin=1.0))
    assert pace.ends() == {"seconds": 1000 - 100 - 2.5}
    pace.expect(1.0)
    assert pace.ends() == {"seconds": 1000 - 100 - 2.0}
    pace.expect(5.0)
    assert pace.forecast() > 5.0 and pace.ends() == {"seconds": 900.0}


def test_seconds_left() -> None:
    clock = FakeClock()
    _, pace = live("100s", clock, Reserve(seconds={"report": 10.0}, margin=1.0, slack=0.0))
    assert pace.seconds_left() == 90.0
    clock.advance(30.0)
    assert pace.seconds_left() == 60.0
    clock.advance(100.0)
    assert pace.seconds_left() == 0.0
    clock = FakeClock()
    meter, counted = live("10 steps", clock)
    counted.begin(False, False)
    assert counted.seconds_left() is None
    meter.charge("train", steps=4.0)
    clock.advance(20.0)
    counted.begin(False, False)
    assert counted.seconds_left() == pytest.approx(30.0)


# ---- counted units ------------------------------------------------------------------------------------------------------------------


@given(
    limit=st.integers(1, 5000),
    costs=st.lists(st.integers(1, 97), min_size=1, max_size=9),
    shares=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_tokens_are_kept_exactly(limit: int, costs: list[int], shares: list[int]) -> None:
    """Whatever a step takes, the last stage ends only when the next step would not fit, and what a stage leaves is spent by the next."""
    meter = Meter(Budget({"tokens": float(limit)}), FakeClock())
    taken = 0
    for index, share in enumerate(shares):
        start = meter.spent("tokens")
        pace = LivePace(meter, {"tokens": start}, share / sum(shares[index:]), Reserve())
        end = start + math.floor(share / sum(shares[index:]) * (limit - start))
        assert pace.ends() == {"tokens": end}
        before = 0.0
        while (go := pace.begin(False, False)) is not None and pace.fits({"tokens": costs[taken % len(costs)]}):
            assert before <= go.progress <= 1.0
            before = go.progress
            meter.charge("train", tokens=costs[taken % len(costs)])
            taken += 1
        assert meter.spent("tokens") <= end < meter.spent("tokens") + costs[taken % len(costs)]
        assert pace.ended_by == "tokens"
    assert end == limit


def test_steps_are_taken_to_the_last_and_progress_is_their_share() -> None:
    meter, pace = live("8 steps")
    seen = []
    while (go := pace.begin(False, False)) is not None:
        seen.append(go.progress)
        assert pace.fits({"steps": 1.0})
        meter.charge("train", steps=1.0)
    assert seen == [k / 8 for k in range(8)]
    assert pace.ended_by == "steps"


def test_flops_are_not_rounded_and_others_are() -> None:
    meter, pace = live("10 flops or 10 examples", share=0.25)
    assert pace.ends() == {"flops": 2.5, "examples": 2.0}
    assert pace.fits({"flops": 2.5}) and not pace.fits({"flops": 2.6})
    assert pace.ended_by == "flops"
    assert meter.spent("flops") == 0.0


def test_three_stages_share_and_roll_over() -> None:
    """100 tokens at 7 a step, in thirds: 33 buys 4 steps, half of the 72 left buys 5, the 37 left buy 5: as many as 100 buy at once."""
    meter = Meter(Budget.parse("100 tokens"), FakeClock())
    taken = []
    for to_come in (3, 2, 1):
        pace = LivePace(meter, {"tokens": meter.spent("tokens")}, 1 / to_come, Reserve())
        taken.append(spend(meter, pace, tokens=7.0))
    assert taken == [4, 5, 5] and sum(taken) == 100 // 7


def test_stages_share_seconds_by_weight() -> None:
    clock = FakeClock()
    meter = Meter(Budget.parse("100s"), clock)
    shares, ends = [3.0, 1.0], []
    for index in range(2):
        pace = LivePace(
            meter, {"seconds": clock.now}, shares[index] / sum(shares[index:]), Reserve(seconds={"end": 20.0}, margin=1.0, slack=0.0)
        )
        while pace.begin(False, False) is not None:
            clock.advance(1.0)
            pace.lap()
        ends.append(clock.now)
    assert ends == [60.0, 80.0]  # three quarters of what is not reserved, and the rest


@pytest.mark.parametrize(("budget", "ended_by", "steps"), [("4 steps or 100 tokens", "steps", 4), ("9 steps or 25 tokens", "tokens", 2)])
def test_the_first_limit_ends(budget: str, ended_by: str, steps: int) -> None:
    meter, pace = live(budget)
    assert spend(meter, pace, tokens=10.0) == steps
    assert pace.ended_by == ended_by


def test_progress_is_that_of_the_limit_that_is_nearest_and_never_falls() -> None:
    clock = FakeClock()
    reserve = Reserve(slack=0.0)
    meter = Meter(Budget.parse("100s or 10 steps"), clock)
    pace = LivePace(meter, {}, 1.0, reserve)
    clock.advance(30.0)
    assert pace.begin(False, False) == Go(0.3)
    meter.charge("train", steps=5.0)
    assert pace.begin(False, False) == Go(0.5)
    reserve.measured("evaluation", 60.0 / reserve.margin)  # 40 s are left to train, 30 of them spent
    near = pace.begin(False, False)
    assert near is not None and near.progress == pytest.approx(0.75)
    reserve.seconds = {}
    assert pace.begin(False, False) == near


# ---- money --------------------------------------------------------------------------------------------------------------------------


def test_money_is_weighed_in_what_it_buys() -> None:
    by_time, by_token = Budget.parse("$2 at $3600/h"), Budget.parse("$2 at $0.5/M tokens")
    assert flow_limits(by_time) == {"seconds": 2.0} and ending_unit(by_time, "seconds") == "usd"
    assert flow_limits(by_token) == {"tokens": 4e6} and ending_unit(by_token, "tokens") == "usd"
    assert flow_limits(Budget.parse("$2 at $3600/h or 5 steps")) == {"steps": 5.0, "seconds": 2.0}
    tight_time = Budget.parse("1s or $2 at $3600/h")
    assert flow_limits(tight_time) == {"seconds": 1.0} and ending_unit(tight_time, "seconds") == "seconds"
    tight_money = Budget.parse("9s or $2 at $3600/h")
    assert flow_limits(tight_money) == {"seconds": 2.0} and ending_unit(tight_money, "seconds") == "usd"
    assert ending_unit(by_time, "steps") == "steps"


def test_a_run_limited_by_money_ends_on_it() -> None:
    meter, pace = live("$1 at $10/k tokens")
    assert spend(meter, pace, tokens=30.0) == 3  # 100 tokens
    assert meter.spent("usd") == pytest.approx(0.9) and ending_unit(meter.budget, pace.ended_by or "") == "usd"
    clock = FakeClock()
    meter, pace = live("$1 at $360/h", clock)
    while pace.begin(False, False) is not None:
        clock.advance(0.75)
        pace.lap()
    assert clock.now == 9.75 and meter.spent("usd") == pytest.approx(0.975)


# ---- the reserve --------------------------------------------------------------------------------------------------------------------


def test_the_reserve_is_kept_and_revised() -> None:
    clock = FakeClock()
    reserve = Reserve(counted={"tokens": 40.0}, seconds={"report": 2.0}, margin=1.5, slack=0.005)
    _, pace = live("100s or 90 tokens or 5 steps", clock, reserve)
    assert pace.ends() == {"seconds": 96.75, "tokens": 50.0, "steps": 5.0}
    reserve.measured("evaluation", 10.0)
    assert reserve.amount("seconds") == 18.0 and pace.ends()["seconds"] == 81.75
    reserve.measured("evaluation", 4.0)  # the first one paid for warming up
    assert reserve.amount("seconds") == 9.0 and pace.ends()["seconds"] == 90.75
    assert reserve.amount("tokens") == 40.0 and reserve.amount("flops") == 0.0
    clock.advance(90.0)
    assert pace.begin(False, False) is not None
    reserve.measured("checkpoint", 1.0)
    assert pace.begin(False, False) is None and pace.ended_by == "seconds"


def test_an_unsteady_part_is_expected_to_take_longer() -> None:
    reserve = Reserve(margin=1.05)
    for seconds in (50.0, 100.0, 1.0, 1.0, 1.0, 1.0):
        reserve.measured("report", seconds)
    assert reserve.seconds["report"] == 1.0  # of what was, the last four count
    for seconds in (3.0, 1.0, 3.0):
        reserve.measured("report", seconds)
    deviation = math.sqrt((3 * 1.0 + 1.0) / 3)  # of 1, 3, 1, 3 around 2
    assert reserve.seconds["report"] == pytest.approx((2.0 + 2 * deviation) / 1.05)


def test_a_reserve_that_takes_all_leaves_no_step() -> None:
    _, pace = live("10 tokens", reserve=Reserve(counted={"tokens": 30.0}))
    assert pace.ends() == {"tokens": 0.0}
    assert pace.begin(False, False) is None and pace.ended_by == "tokens"


def test_an_evaluation_must_fit_beside_the_last_one() -> None:
    clock = FakeClock()
    meter = Meter(Budget.parse("100s or 90 tokens"), clock)
    reserve = Reserve(counted={"tokens": 40.0}, seconds={"evaluation": 10.0, "report": 20.0}, margin=2.0, slack=0.0)
    pace = LivePace(meter, {}, 1.0, reserve)
    assert affords_evaluation(meter, reserve) and pace.evaluates()
    meter.charge("train", tokens=10.0)
    assert pace.evaluates()
    meter.charge("train", tokens=1.0)
    assert not pace.evaluates() and not affords_evaluation(meter, reserve)
    reserve.counted = {}
    clock.advance(20.0)  # 20 for this one, 60 reserved
    assert pace.evaluates()
    clock.advance(0.5)
    assert not pace.evaluates()


# ---- several processes --------------------------------------------------------------------------------------------------------------


def test_what_the_first_process_says_is_done() -> None:
    """A process that has spent next to nothing follows one that is further, and one that has spent all goes on if told so."""
    said: list[list[float]] = []
    answers = iter([[0.25, 1.0, 0.0, -1.0], [0.5, 0.0, 1.0, -1.0], [0.9, 0.0, 0.0, -1.0], [0.95, 0.0, 0.0, 1.0], [0.0]])

    def agree(values: list[float]) -> list[float]:
        said.append(values)
        return next(answers)

    meter = Meter(Budget.parse("10s or 4 steps"), FakeClock())
    pace = LivePace(meter, {}, 1.0, Reserve(), agree)
    assert pace.begin(False, True) == Go(0.25, save=True, stop=False)
    assert said[-1] == [0.0, 0.0, 1.0, -1.0]
    assert pace.begin(True, False) == Go(0.5, save=False, stop=True)
    assert said[-1] == [0.25, 1.0, 0.0, -1.0]  # progress goes on from what was agreed
    meter.charge("train", steps=4.0)
    assert pace.begin(False, False) == Go(0.9)
    assert said[-1] == [1.0, 0.0, 0.0, 1.0]  # this one would have ended, by the second of its limits
    assert pace.begin(False, False) is None and pace.ended_by == "steps"
    assert not pace.evaluates() and said[-1] == [1.0]  # though this one could pay


# ---- state --------------------------------------------------------------------------------------------------------------------------


def test_a_resumed_stage_goes_on_where_it_was() -> None:
    clock = FakeClock()
    meter = Meter(Budget.parse("100s or 50 steps"), clock)
    clock.advance(20.0)
    pace = LivePace(meter, {"seconds": 20.0, "steps": 0.0}, 0.5, NOTHING)
    for seconds in (4.0, 6.0):
        pace.begin(False, False)
        clock.advance(seconds)
        meter.charge("train", steps=1.0)
        pace.lap()
    last = pace.begin(False, False)
    assert last == Go(10 / 40)
    again = LivePace(meter, {}, 0.5, NOTHING)
    again.load_state_dict(pace.state_dict())
    assert again.ends() == pace.ends() == {"seconds": 60.0, "steps": 25.0}
    assert again.forecast() == pace.forecast() == 6.0 + 5 * 2.0 / 2
    assert again.begin(False, False) == last
    fresh = LivePace(Meter(Budget.parse("100s or 50 steps"), FakeClock()), {}, 0.5, Reserve())
    fresh.load_state_dict({"starts": {"seconds": 0.0}, "progress": 0.25, "recent": []})
    assert fresh.begin(False, False) == Go(0.25)  # as far as it was, though the new books show less


# ---- replay -------------------------------------------------------------------------------------------------------------------------


def recorded(progress: Sequence[float], saves: Sequence[int] = (), evaluations: Mapping[int, float] | None = None) -> RecordedPace:
    steps = [{"kind": "step", "step": 11 + i, "progress": p} for i, p in enumerate(progress)]
    return RecordedPace(steps, [(step, None) for step in saves], evaluations or {}, (), "seconds")


def test_a_replay_follows_the_journal() -> None:
    """Saves and evaluations come where they came, an evaluation at its own progress, and one after the last step too."""
    pace = recorded([0.0, 0.31, 0.32, 0.9], saves=[12, 13, 99], evaluations={13: 0.5, 14: 0.95})
    seen = []
    while (go := pace.begin(save=True, stop=False)) is not None:
        if go.save:
            seen.append("saved")
        elif go.progress in (0.5, 0.95):
            assert pace.evaluates()
            assert not pace.evaluates()  # once
            seen.append(f"evaluated at {go.progress}")
        else:
            assert not pace.evaluates()
            assert pace.fits({"tokens": 1e30})
            seen.append(str(go.progress))
            pace.lap()
    assert seen == ["0.0", "0.31", "saved", "0.32", "saved", "evaluated at 0.5", "0.9", "evaluated at 0.95"]
    assert pace.ended_by == "seconds" and pace.begin(False, False) is None


def test_a_replay_can_be_stopped_and_knows_no_time() -> None:
    pace = recorded([0.5])
    assert pace.begin(False, True) == Go(0.5, stop=True)
    pace.expect(3.0)
    assert pace.seconds_left() is None and pace.state_dict() == {}
