"""The contract of rewards."""

from __future__ import annotations

from collections.abc import Sequence

from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Reward, Verdict
from outlay.rewards.guarding import groups
from outlay.testing.common import global_generators_untouched, hold

_CONTEXT = Context(seed=0)


def check_reward(reward: Reward, answers: Sequence[Answer], context: Context = _CONTEXT) -> None:
    """Check the reward seam: a verdict an answer, in order, within bounds; the same each time; groups judged without regard to each other.

    Args:
        reward: what judges.
        answers: right, wrong and, where there are such, unjudgeable answers, of two groups at least; those of a group lie together.
        context: what the reward is opened with.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    name = type(reward).__name__
    parts = groups(answers)
    numbers = [part[0].group for part in parts]
    hold(len(parts) >= 2 and len(set(numbers)) == len(numbers), "answers of two groups lie together by group", f"found groups {numbers}")
    hold(isinstance(reward, Reward), "a reward has bounds and open", f"{name} lacks one of them")
    low, high = reward.bounds
    hold(low <= high, "bounds are the lowest and the highest value", f"{name} has {low} and {high}")
    judge = reward.open(context)  # the first time may import packages, and some of those draw as they are imported
    again = reward.open(context)
    try:
        with global_generators_untouched(name):
            found = _judged(judge, answers, name)
        hold(judge.judge([]) == [], "no answers get no verdicts", f"{name} gave some")
        for answer, verdict in zip(answers, found, strict=True):
            _check_verdict(verdict, (low, high), f"{name} gave {verdict} on {answer.text[:80]!r}")
        for other, rule in ((judge, "the same answers get the same verdicts"), (again, "another judge gives the same verdicts")):
            _hold_same(_judged(other, answers, name), found, answers, rule, name)
        cut = iter(found)
        told = [(part, [next(cut) for _ in part]) for part in parts]
        for part, verdicts in told:
            _hold_same(_judged(judge, part, name), verdicts, part, "a group is judged without regard to other groups", name)
        backwards = told[::-1]
        turned = [answer for part, _ in backwards for answer in part]
        expected = [verdict for _, verdicts in backwards for verdict in verdicts]
        _hold_same(_judged(judge, turned, name), expected, turned, "groups in another order get the same verdicts", name)
    finally:
        for one in (judge, again):
            if hasattr(one, "close"):
                one.close()


def _judged(judge: Judge, answers: Sequence[Answer], name: str) -> list[Verdict]:
    found = judge.judge(answers)
    hold(len(found) == len(answers), "a verdict an answer", f"{name} gave {len(found)} on {len(answers)} answers")
    return found


def _check_verdict(verdict: Verdict, bounds: tuple[float, float], seen: str) -> None:
    hold(isinstance(verdict, Verdict), "verdicts are Verdict objects", seen)
    hold(verdict.outcome in ("passed", "failed", "unjudged"), "an answer has passed, failed, or could not be judged", seen)
    if verdict.outcome == "unjudged":
        hold(verdict.value == 0.0, "what could not be judged has the value 0", seen)
        hold(bool(verdict.why), "what could not be judged has a reason", seen)
    else:
        hold(bounds[0] <= verdict.value <= bounds[1], "values keep the bounds", f"{seen}, bounds {bounds}")


def _hold_same(found: Sequence[Verdict], wanted: Sequence[Verdict], answers: Sequence[Answer], rule: str, name: str) -> None:
    for answer, one, other in zip(answers, found, wanted, strict=True):
        same = (one.outcome, one.value) == (other.outcome, other.value)
        hold(same, rule, f"{name} gave {one} after {other} on {answer.text[:80]!r}")
