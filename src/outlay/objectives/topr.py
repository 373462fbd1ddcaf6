"""TOPR: off-policy REINFORCE whose bad answers are tapered, so that one set of rollouts bears many updates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from outlay.advantages import Shifted
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.likelihoods import Token, WholeSequence
from outlay.objectives.named import Named
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Tapered


@dataclass(frozen=True)
class Topr(Named):
    """With A = r - baseline and z = pi(y) / mu(y) of the whole answer, the mean over answers of w A grad log pi(y), w = 1 for A >= 0, min(z, 1) for A < 0.

    There is neither a divergence term nor a clip that stops learning: good answers are imitated wherever the policy is, and the push against bad ones
    fades as they become unlikely. The paper's rewards are +1 and -1; for 1 and 0 take ``baseline`` 1/2. Off the policy the baseline sets how much bad
    answers teach (``outlay.advantages.baseline_for``).

    Args:
        baseline: c, in the units of the reward.
        level: ``sequence``, the paper's, or ``token``: ratio and weight of every token for itself, as in ROLL.
        good: range of the weight where A >= 0.
        bad: range of the weight where A < 0.
        denominator: mu; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "Tapered off-policy REINFORCE (TOPR)"
    paper: ClassVar[Paper | None] = Paper(
        "2503.14286", "Tapered Off-Policy REINFORCE: Stable and efficient reinforcement learning for LLMs", 2025
    )

    baseline: float = 0.0
    level: Literal["sequence", "token"] = "sequence"
    good: tuple[float, float] = (1.0, 1.0)
    bad: tuple[float, float] = (0.0, 1.0)
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        whole = self.level == "sequence"
        return PolicyGradient(
            advantage=Shifted(self.baseline),
            denominator=self.denominator,
            likelihood=WholeSequence() if whole else Token(),
            stabiliser=Tapered(self.good, self.bad),
            # the mean over tokens of the answer's one ratio is the ratio; tokens' own are summed to give the answer's gradient
            aggregate="sequence_mean" if whole else "sequence_sum",
        )
