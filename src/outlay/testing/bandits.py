"""Bandits: arms whose success rates are known, so that what a teacher misses is known too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.errors import InputError
from outlay.estimators.base import Estimator
from outlay.rng import numpy_generator
from outlay.teachers.base import Asking, Screens, Teacher


@dataclass(frozen=True)
class Bandit:
    """Arms with fixed success rates, or with other ones from half of the stage on. Nothing is learnt by being asked.

    The learning signal of an arm is sqrt(p (1 - p)), half of the mean |advantage| of its answers: largest where every other answer is right.

    Args:
        rates: success rate of every arm, each in [0, 1].
        later: the same from half of the stage on; empty for the same rates.
    """

    rates: tuple[float, ...]
    later: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.rates or len(self.later) not in (0, len(self.rates)):
            raise InputError(f"a bandit has arms, and as many later as before; found {len(self.rates)} and {len(self.later)}")

    def at(self, progress: float) -> FloatArray:
        """Return the rates at ``progress`` in [0, 1], (arms,)."""
        return np.array(self.later if self.later and progress >= 0.5 else self.rates, np.float64)

    def signals(self, progress: float) -> FloatArray:
        """Return the learning signals at ``progress``, (arms,), each in [0, 1/2]."""
        rates = self.at(progress)
        return np.asarray(np.sqrt(rates * (1 - rates)), np.float64)


#: one arm of ten is worth asking, and some are worth little
STATIONARY = Bandit((0.0, 0.0, 0.02, 0.05, 0.1, 0.5, 0.9, 0.95, 1.0, 1.0))
#: from half of the stage on it is another arm, which has always been solved before
SWITCHING = Bandit(STATIONARY.rates, STATIONARY.rates[-3:] + STATIONARY.rates[:-3])


def regrets(
    teacher: Teacher | None,
    bandit: Bandit,
    estimator: Estimator,
    *,
    batches: int = 80,
    count: int = 16,
    answers: int = 8,
    seed: int = 0,
) -> FloatArray:
    """Return the mean regret of every batch, (batches,): largest signal - signal of the arm, averaged over its questions; 0 is the best.

    Args:
        teacher: who chooses; None for the oracle that knows the rates.
        bandit: what it chooses among.
        estimator: what it learns of success rates from.
        batches: length of the stage, > 0.
        count: questions in a batch, > 0.
        answers: to every question, > 0.
        seed: root of the answers' stream and the teacher's.
    """
    context = Context(seed)
    arms = [Arm(f"arm {i}", f"arm {i}", -rate) for i, rate in enumerate(bandit.rates)]
    estimates, lessons = estimator.open(arms, context), None if teacher is None else teacher.open(arms, context)
    found = np.zeros(batches)
    for batch in range(batches):
        progress = batch / batches
        rates, signals = bandit.at(progress), bandit.signals(progress)
        if lessons is None:
            chosen = np.full(count, int(np.argmax(signals)), np.int64)
        else:
            rng = numpy_generator(seed, "testing/bandits/teacher", batch)
            over = lessons.over if isinstance(lessons, Screens) else 1
            asking = Asking(count, progress, estimates.rates(), estimates.seen(), rng)
            chosen = lessons.choose(Asking(count * over, progress, asking.rates, asking.seen, rng))
            if isinstance(lessons, Screens):
                chosen = chosen[lessons.screen(estimates.of(chosen, None), asking)]
        outcomes = answered(chosen, rates, answers, numpy_generator(seed, "testing/bandits/answers", batch))
        found[batch] = signals.max() - signals[chosen].mean()
        estimates.update(outcomes)
        if lessons is not None:
            lessons.update(chosen, outcomes)
    return found


def answered(chosen: IntArray, rates: FloatArray, answers: int, rng: np.random.Generator) -> list[Outcome]:
    """Return independent answers to questions of the chosen arms, each right with its arm's rate."""
    right = (rng.random((len(chosen), answers)) < rates[chosen][:, None]).astype(np.float64).tolist()
    return [Outcome(arm, tuple(rewards)) for arm, rewards in zip(chosen.tolist(), right, strict=True)]
