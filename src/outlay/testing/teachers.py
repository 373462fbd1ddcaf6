"""Contract check of the teachers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.rng import numpy_generator
from outlay.teachers.base import Asking, Examined, Lessons, Ranks, Screens, Sets, Teacher
from outlay.testing.common import global_generators_untouched, hold
from outlay.testing.plain import _check_rebuilt, check_resumable

#: what arms a teacher is checked on unless told otherwise: they have everything that an arm can have
ARMS: tuple[Arm, ...] = tuple(Arm(f"kind/{i}", f"kind/{i}", float(i), 40 + i, (i / 5, 1 - i / 10), f"question {i}") for i in range(6))
_ANSWERS = 8
_DRAWS = 60


def check_teacher(teacher: Teacher, arms: Sequence[Arm] = ARMS, *, steps: int = 6, count: int = 32, long: int = 150, seed: int = 0) -> None:
    """Check the teacher seam on a made run, in which arms are of unlike difficulty and some questions cannot be judged.

    Shares are >= 0 and sum to 1; what is chosen has the length that was asked for and names arms; asking changes nothing and equal askings
    are answered equally; how often arms are chosen agrees with the shares (loosely, where lessons declare with ``sets`` that they draw
    without replacement); going on from a state that went through JSON equals never having stopped; outcomes without rewards, batches that
    nobody judges and rates that nobody knows break nothing; the state stops growing. What lessons do beside, screening, ranking and
    learning from evaluations, is checked where they have it.

    Args:
        teacher: any object with ``open``; where it is a dataclass, its description in the catalog's plain values is checked as well.
        arms: what it chooses among.
        steps: batches of the run that is stopped and resumed everywhere; about steps^2 batches are driven.
        count: questions in a batch, > 0.
        long: batches after which the state must have its size: as many again must not make it half as large again. 0 leaves this out.
        seed: root of every stream.

    Raises:
        AssertionError: naming the rule, the teacher and what was seen.
    """
    hold(isinstance(teacher, Teacher), "a teacher has open(arms, context)", f"found {teacher!r}")
    _check_rebuilt(teacher)
    run = _Run(teacher, tuple(arms), count, max(steps, 1), seed)
    with global_generators_untouched(repr(teacher)):
        make = run.opener()
        for progress in (0.0, 0.5, 1.0):
            run.check_answers(make(), progress)
        lessons = make()
        for step in range(steps):
            run.drive(lessons, step)
            run.check_answers(lessons, (step + 1) / steps)
        run.check_frequencies(make(), 0)
        run.check_frequencies(lessons, steps)
        run.check_unjudged(lessons)
        check_resumable(make, run.drive, run.read, steps)
        if long:
            run.check_growth(make(), long)


def _must(condition: bool, rule: str, seen: Callable[[], str]) -> None:
    # arrays take long to write: only where the rule is broken
    if not condition:
        hold(False, rule, seen())


class _Run:
    """A made run: what is asked and what comes of it follows from the number of the batch alone."""

    def __init__(self, teacher: Teacher, arms: tuple[Arm, ...], count: int, steps: int, seed: int) -> None:
        self.teacher, self.arms, self.count, self.steps, self.seed = teacher, arms, count, steps, seed
        # the first arm is always solved, the last never, unless it is alone
        self.truth = np.linspace(1.0, 0.0, len(arms)) if len(arms) > 1 else np.array([0.5])

    def opener(self) -> Callable[[], Lessons]:
        """Return what makes fresh lessons, ranked where they rank."""
        context = Context(self.seed)
        first = self.teacher.open(self.arms, context)
        rule = "lessons have shares, choose, update, state_dict and load_state_dict"
        hold(isinstance(first, Lessons), rule, f"{self.teacher!r} opened {first!r}")
        if not isinstance(first, Ranks):
            return lambda: self.teacher.open(self.arms, context)
        scores = self.stream("ranked", 0).uniform(-1, 1, len(self.arms))
        scores.flags.writeable = False
        first.ranked(scores)
        state = json.dumps(first.state_dict())

        def ranked() -> Lessons:
            # through the state, so that ranks which it lacks are missed
            lessons = self.teacher.open(self.arms, context)
            lessons.load_state_dict(json.loads(state))
            return lessons

        asked, again = (one.shares(self.asking(0)) for one in (first, ranked()))
        hold(np.array_equal(asked, again), "ranks belong to the state", f"{self.teacher!r} had the shares {asked}, and resumed {again}")
        return ranked

    def stream(self, name: str, number: int) -> np.random.Generator:
        return numpy_generator(self.seed, f"check_teacher/{name}", number)

    def asking(
        self, step: int, count: int | None = None, *, progress: float | None = None, rates: FloatArray | None = None, draw: int = 0
    ) -> Asking:
        """Return what batch number ``step`` asks; every call has a stream of its own that gives the same again."""
        seen = np.full(len(self.arms), 4.0 * step)
        if rates is None:
            noise = self.stream("rates", step).normal(0, 0.1, len(self.arms))
            rates = np.clip(self.truth + noise, 0, 1)
            rates[step % len(self.arms)] = np.nan
            seen[step % len(self.arms)] = 0.0
        rates.flags.writeable = seen.flags.writeable = False
        spent = min(step / self.steps, 1.0) if progress is None else progress
        return Asking(self.count if count is None else count, spent, rates, seen, self.stream(f"choose/{step}", draw))

    def outcomes(self, chosen: IntArray, step: int) -> list[Outcome]:
        """Return what came of a batch; every fifth question could not be judged, and every third has its objective's advantages."""
        found = []
        right = self.stream("answers", step).random((len(chosen), _ANSWERS)) < self.truth[chosen][:, None]
        for place, (arm, rewards) in enumerate(zip(chosen.tolist(), right.astype(float), strict=True)):
            known = tuple((rewards - rewards.mean()).tolist()) if place % 3 == 0 else ()
            found.append(Outcome(arm, ()) if place % 5 == 4 else Outcome(arm, tuple(rewards.tolist()), known))
        return found

    def drive(self, lessons: Lessons, step: int) -> None:
        """Do one batch."""
        chosen = self.chosen(lessons, partial(self.asking, step), self.count)
        lessons.update(chosen, self.outcomes(chosen, step))
        if isinstance(lessons, Examined) and step % 2:
            losses = 1 - self.truth
            losses[step % len(self.arms)] = np.nan
            lessons.examined(losses, min(step / self.steps, 1.0))

    def chosen(self, lessons: Lessons, ask: Callable[[int], Asking], count: int) -> IntArray:
        """Return the arms of a batch, screened where lessons screen."""
        if not isinstance(lessons, Screens):
            return self.well_chosen(lessons, ask(count), count)
        hold(lessons.over >= 1, "there are as many candidates as questions at least", f"{self.teacher!r} has over = {lessons.over}")
        candidates = self.well_chosen(lessons, ask(count * lessons.over), count * lessons.over)
        rates = ask(count).rates[candidates]
        rates.flags.writeable = False
        kept, again = (lessons.screen(rates, ask(count)) for _ in range(2))

        def seen() -> str:
            return f"{self.teacher!r} kept {kept.tolist()} and, asked again, {again.tolist()} of {rates.tolist()}"

        _must(np.array_equal(kept, again), "equal candidates are screened equally", seen)
        whole = np.issubdtype(kept.dtype, np.integer) and kept.shape == (count,)
        _must(whole and bool(np.all(np.diff(kept) > 0)), "screening keeps count ascending positions", seen)
        _must(kept[0] >= 0 and kept[-1] < len(rates), "screening keeps candidates that are there", seen)
        return candidates[kept]

    def well_chosen(self, lessons: Lessons, asking: Asking, count: int) -> IntArray:
        found = lessons.choose(asking)

        def seen() -> str:
            return f"{self.teacher!r}, asked for {count} of {len(self.arms)} arms, chose {found!r}"

        _must(
            isinstance(found, np.ndarray) and np.issubdtype(found.dtype, np.integer), "arms are chosen as an array of their numbers", seen
        )
        _must(found.shape == (count,), "as many questions are chosen as were asked for", seen)
        _must(bool(np.all((found >= 0) & (found < len(self.arms)))), "arms that are chosen exist", seen)
        return found

    def well_shared(self, lessons: Lessons, asking: Asking) -> FloatArray:
        found = lessons.shares(asking)

        def seen() -> str:
            return f"{self.teacher!r} at {asking} gave {found!r}"

        _must(isinstance(found, np.ndarray) and found.shape == (len(self.arms),), "every arm has a share", seen)
        _must(bool(np.all(np.isfinite(found)) and np.all(found >= 0)), "shares are >= 0", seen)
        _must(abs(float(found.sum()) - 1) < 1e-9, "shares sum to 1", lambda: f"{seen()}, which sums to {found.sum()!r}")
        return found

    def check_answers(self, lessons: Lessons, progress: float) -> None:
        """Shares and choices are well formed, change nothing and repeat, at rates of every kind and counts of every size."""
        arms = len(self.arms)
        edge = np.asarray(np.arange(arms) % 2, np.float64)
        partly = np.array([np.nan, 1.0] * arms)[:arms]
        known: list[FloatArray | None] = [None, np.full(arms, np.nan), edge, partly, np.full(arms, 0.5)]
        for rates in known:
            for count in (1, self.count, 2 * arms + 1):
                ask = partial(self.asking, 1, progress=progress, rates=rates)
                self.check_asked_twice(lessons, ask, count)

    def check_asked_twice(self, lessons: Lessons, ask: Callable[[int], Asking], count: int) -> None:
        before = json.dumps(lessons.state_dict(), sort_keys=True)
        shares, chosen = self.well_shared(lessons, ask(count)), self.chosen(lessons, ask, count)
        after = json.dumps(lessons.state_dict(), sort_keys=True)
        _must(before == after, "asking changes nothing", lambda: f"{self.teacher!r} was {before} and became {after}")
        chosen_again, shares_again = self.chosen(lessons, ask, count), self.well_shared(lessons, ask(count))
        rule = "equal askings are answered equally"
        _must(np.array_equal(shares, shares_again), rule, lambda: f"{self.teacher!r} gave the shares {shares} and then {shares_again}")
        _must(np.array_equal(chosen, chosen_again), rule, lambda: f"{self.teacher!r} chose {chosen} and then {chosen_again}")

    def check_frequencies(self, lessons: Lessons, step: int) -> None:
        """How often arms come agrees with their shares."""
        shares = self.well_shared(lessons, self.asking(step))
        counts = sum(np.bincount(lessons.choose(self.asking(step, draw=draw)), minlength=len(self.arms)) for draw in range(_DRAWS))
        found = np.asarray(counts) / (_DRAWS * self.count)
        slack = 5 * np.sqrt(shares * (1 - shares) / (_DRAWS * self.count)) + (0.1 if isinstance(lessons, Sets) and lessons.sets else 0.005)
        seen = f"{self.teacher!r} after {step} batches has the shares {shares} and chose with frequencies {found}"
        hold(bool(np.all(np.abs(found - shares) <= slack)), "arms are chosen as often as their shares say", seen)

    def check_unjudged(self, lessons: Lessons) -> None:
        """What nobody judges breaks nothing."""
        chosen = np.arange(self.count) % len(self.arms)
        for outcomes in ([Outcome(arm, ()) for arm in chosen.tolist()], []):
            lessons.update(chosen, outcomes)
            self.check_answers(lessons, 0.5)
        lessons.update(np.zeros(0, np.int64), [])
        self.check_answers(lessons, 0.5)

    def check_growth(self, lessons: Lessons, long: int) -> None:
        """The state stops growing."""
        self.steps, usual = 2 * long, self.steps
        sizes = []
        for step in range(2 * long):
            self.drive(lessons, step)
            sizes.append(len(json.dumps(lessons.state_dict())) if step + 1 in (long, 2 * long) else 0)
        self.steps = usual
        half, whole = sizes[long - 1], sizes[-1]
        seen = f"that of {self.teacher!r} took {half} characters after {long} batches and {whole} after {2 * long}"
        hold(whole <= max(1.5 * half, half + 300), "a state has a size that it keeps", seen)

    def read(self, lessons: Lessons) -> Any:
        """Return what must agree after resuming."""
        asked: list[Any] = [lessons.state_dict()]
        for step in (0, self.steps // 2, self.steps):
            asked += [
                lessons.shares(self.asking(step)),
                self.chosen(lessons, partial(self.asking, step), self.count),
            ]
        return asked
