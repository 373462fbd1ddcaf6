"""Direct preference optimisation and its variants: a classifier of pairs whose logit is a difference of log ratios."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from outlay.catalog import Paper
from outlay.objectives.base import Objective
from outlay.objectives.pairs import PairChoice, pair_measures
from outlay.objectives.references import bound, log_ratios, with_reference
from outlay.objectives.sequences import Frozen, answer_mask, row_means, row_sums, token_log_probs
from outlay.schedules.base import require
from outlay.sources.base import Batch


def sigmoid(d: torch.Tensor, beta: float, smoothing: float) -> torch.Tensor:
    """-(1 - e) log sigma(beta d) - e log sigma(-beta d)."""
    return -(1 - smoothing) * logsigmoid(beta * d) - smoothing * logsigmoid(-beta * d)


def robust(d: torch.Tensor, beta: float, smoothing: float) -> torch.Tensor:
    """[-(1 - e) log sigma(beta d) + e log sigma(-beta d)] / (1 - 2 e)."""
    return (-(1 - smoothing) * logsigmoid(beta * d) + smoothing * logsigmoid(-beta * d)) / (1 - 2 * smoothing)


def hinge(d: torch.Tensor, beta: float, smoothing: float) -> torch.Tensor:
    """max(0, 1 - beta d)."""
    return torch.relu(1 - beta * d)


def ipo(d: torch.Tensor, beta: float, smoothing: float) -> torch.Tensor:
    """(d - 1 / (2 beta))^2."""
    return (d - 1 / (2 * beta)) ** 2


def exo(d: torch.Tensor, beta: float, smoothing: float) -> torch.Tensor:
    """KL of (sigma(beta d), sigma(-beta d)) from (1 - e, e)."""
    won, lost = logsigmoid(beta * d), logsigmoid(-beta * d)
    return won.exp() * (won - math.log1p(-smoothing)) + lost.exp() * (lost - math.log(smoothing))


LOSSES: dict[str, Callable[[torch.Tensor, float, float], torch.Tensor]] = {
    "sigmoid": sigmoid,
    "robust": robust,
    "hinge": hinge,
    "ipo": ipo,
    "exo": exo,
}
#: loss -> what label_smoothing may be
_SMOOTHING: dict[str, tuple[Callable[[float], bool], str]] = {
    "sigmoid": (lambda e: 0 <= e <= 0.5, "in [0, 0.5]"),
    "robust": (lambda e: 0 <= e < 0.5, "in [0, 0.5)"),
    "hinge": (lambda e: e == 0, "0"),
    "ipo": (lambda e: e == 0, "0"),
    "exo": (lambda e: 0 < e < 0.5, "in (0, 0.5), such as 0.001"),
}


@dataclass(frozen=True)
class DirectPreference:
    """Mean over pairs of a loss of d, the difference of the better answer's log ratio to the worse one's:

        d = log pi(y_w | x) / pi_ref(y_w | x) - log pi(y_l | x) / pi_ref(y_l | x)

        sigmoid  -(1 - e) log sigma(beta d) - e log sigma(-beta d)              DPO; with e > 0 conservative DPO
        robust   [-(1 - e) log sigma(beta d) + e log sigma(-beta d)] / (1 - 2e) unbiased when a share e of labels is wrong (arXiv 2403.00409)
        hinge    max(0, 1 - beta d)                                             SLiC's calibration with a reference (arXiv 2309.06657)
        ipo      (d - 1 / (2 beta))^2                                           d is drawn to a fixed margin (arXiv 2310.12036)
        exo      KL((sigma(beta d), sigma(-beta d)) || (1 - e, e))              the reverse direction (arXiv 2402.00856)

    e = ``label_smoothing``. With ``length_normalised`` every log ratio is a mean over the answer's tokens, as in Tulu 3 (arXiv 2411.15124); the authors of
    ipo run it so as well, for its margin is else one for whole answers, however long. At pi = pi_ref the sigmoid loss is log 2.

    The reference is the model as it was when the stage began, so that iterative training in several stages compares with the iteration before.
    Its log probabilities are worked out once a batch. On answers sampled as training goes, with a reward for each, this is online iterative DPO
    (arXiv 2405.07863): ``pairs`` says which two answers of a question are compared.

    Knob ``beta`` > 0: 0.1, or 5 for length-normalised ratios. The measures ``better`` and ``worse`` are the mean log ratios of either side.

    Args:
        loss: which of the five.
        label_smoothing: e, the share of labels taken to be wrong.
        length_normalised: means over tokens instead of sums.
        reference_free: take pi_ref for uniform, that is leave it out; no reference is kept or run.
        pairs: which pair a group gives.
    """

    title: ClassVar[str] = "Direct preference optimisation (DPO, IPO, SLiC hinge, robust DPO, EXO)"
    paper: ClassVar[Paper | None] = Paper(
        "2305.18290", "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", 2023
    )
    whole_groups: ClassVar[bool] = True

    loss: Literal["sigmoid", "robust", "hinge", "ipo", "exo"] = "sigmoid"
    label_smoothing: float = 0.0
    length_normalised: bool = False
    reference_free: bool = False
    pairs: PairChoice = field(default_factory=PairChoice)
    _frozen: Frozen | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.loss in LOSSES, f"loss must be one of {', '.join(LOSSES)}, found {self.loss!r}")
        fits, accepted = _SMOOTHING[self.loss]
        require(fits(self.label_smoothing), f"label_smoothing must be {accepted} for the loss {self.loss}, found {self.label_smoothing}")

    @property
    def knobs(self) -> Mapping[str, float]:
        """The knob beta."""
        return {"beta": 5.0 if self.length_normalised else 0.1}

    @property
    def passes(self) -> float:
        """Forward passes that preparing takes: one of the reference, if there is one."""
        return 0.0 if self.reference_free else 1.0

    def bind(self, frozen: Frozen) -> Objective:
        """Return the objective with its reference."""
        return bound(self, frozen)

    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the rows that are in a pair (and one of every other group), with the column ``reference``.

        Raises:
            InputError: when there is to be a reference and the objective has not been bound to one.
        """
        kept = self.pairs.without_others(batch)
        return kept if self.reference_free else with_reference(self._frozen, kept, "objectives/dpo")

    def weight(self, batch: Batch) -> float:
        """Return the number of pairs."""
        return float(len(self.pairs.of(batch)))

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss over the pairs of ``input_ids`` (n, T), ``labels`` (n, T), ``group`` (n,), ``reward`` (n,) and ``reference`` (n, T).

        Raises:
            InputError: when there is to be a reference and the batch was not prepared.
        """
        beta = knobs.get("beta", self.knobs["beta"])
        pairs, mask = self.pairs.of(batch), answer_mask(batch)
        log_probs = token_log_probs(model, batch)
        if not len(pairs):
            return log_probs.sum() * 0.0, {}
        ratios = log_probs if self.reference_free else log_ratios(log_probs, batch, "objectives/dpo")
        better, worse = (row_means if self.length_normalised else row_sums)(ratios, mask)[pairs].unbind(1)
        losses = LOSSES[self.loss](better - worse, beta, self.label_smoothing)
        measures = {"better": better.detach().mean(), "worse": worse.detach().mean(), **pair_measures(better, worse)}
        return losses.mean(), measures
