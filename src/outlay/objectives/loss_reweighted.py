"""Loss-based reweighting: examples of a batch count by where their loss lies among the others'."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from outlay.catalog import Paper
from outlay.objectives.base import at_least_single
from outlay.objectives.sequences import answer_mask, evaluating, knob, row_means, token_log_probs
from outlay.schedules.base import require
from outlay.sources.base import Batch

Strategy = Literal["lin_upper", "quadratic", "extremes"]


@dataclass(frozen=True)
class LossReweighted:
    """Loss = sum_i w_i l_i over the examples of an update, w = softmax(focus f(x) / r) held fixed, x_i = (2 l_i - max l - min l) / (max l - min l).

    l_i is the mean cross entropy of example i's labelled tokens, or of its class where the batch has ``inputs``. With f = ``lin_upper``,
    min(x + 1, 1), the examples below the middle of the range count less and all above it alike; ``quadratic``, 1 - x^2, is for the middle;
    ``extremes``, |x|, for both ends. w maximises sum_i w_i f_i - (r / focus) KL(w || even).

    Early losses carry no signal: the paper begins with even weights for 5 % of its steps. Knob ``focus`` >= 0 multiplies 1 / r, 0 being the plain
    mean, so that a schedule is the burn-in: ``focus: {peak: 1, schedule: {sequence: {pieces: [{constant: {level: 0}}, constant], shares: [1, 19]}}}``.

    Weights are those of the whole update, however it is cut into pieces. Where it is cut, the losses that they rest on come from a forward pass
    beforehand in evaluation mode, which is charged; uncut, from the update's own. Of several processes each weighs its own part of the
    batch. It is for redundant data: where labels are wrong, ``lin_upper`` learns more of what is wrong than the plain mean does.

    Args:
        strategy: f.
        r: how far weights may leave the even ones, > 0; the largest weight is at most e^(1 / r) times the smallest. The paper's larger models have
            0.4 and its smallest 1.
    """

    title: ClassVar[str] = "Loss-based sample reweighting"
    paper: ClassVar[Paper | None] = Paper(
        "2502.06733", "Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining", 2025
    )
    knobs: ClassVar[dict[str, float]] = {"focus": 1.0}

    strategy: Strategy = "lin_upper"
    r: float = 0.4

    def __post_init__(self) -> None:
        require(self.strategy in _SHAPES, f"strategy must be one of {', '.join(_SHAPES)}, found {self.strategy!r}")
        require(0 < self.r < math.inf, f"r must be finite and > 0, found {self.r}")

    def weight(self, batch: Batch) -> float:
        """Return the number of examples that teach: those with a label."""
        return float(_taught(batch).sum())

    @torch.no_grad()
    def survey(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the batch with ``row_weight`` (n,): what each example counts, 1 on average over those that teach."""
        with evaluating(model):
            return {**batch, "row_weight": self._weights(_losses(model, batch), _taught(batch), knobs)}

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the weighted loss and, as means over examples, the ``plain_loss`` and the ``divergence`` of the weights from even ones in nats."""
        losses, taught = _losses(model, batch), _taught(batch)
        rows = taught.sum().clamp(min=1)
        fixed = losses.detach()
        weights = batch["row_weight"].to(fixed.dtype) if "row_weight" in batch else self._weights(fixed, taught, knobs)
        measures = {"plain_loss": fixed[taught].sum() / rows, "divergence": torch.xlogy(weights, weights).sum() / rows}
        return (weights * losses).sum() / rows, measures

    def _weights(self, losses: torch.Tensor, taught: torch.Tensor, knobs: Mapping[str, float]) -> torch.Tensor:
        found = torch.zeros_like(losses)
        if bool(taught.any()):
            found[taught] = weights_of(losses[taught], self.strategy, self.r, knob(knobs, "focus", 1.0)) * taught.sum()
        return found


def weights_of(losses: torch.Tensor, strategy: Strategy = "lin_upper", r: float = 0.4, focus: float = 1.0) -> torch.Tensor:
    """Return w = softmax(focus f(x) / r), (n,), from the losses (n,) of a batch, n > 0; even where all are equal.

    Raises:
        ValueError: for a strategy that there is not.
    """
    require(strategy in _SHAPES, f"strategy must be one of {', '.join(_SHAPES)}, found {strategy!r}")
    low, high = losses.min(), losses.max()
    places = (2 * losses - (high + low)) / (high - low).clamp(min=1e-6)
    return torch.softmax(_SHAPES[strategy](places) * (focus / r), 0)


_SHAPES = {
    "lin_upper": lambda x: (x + 1).clamp(max=1),
    "quadratic": lambda x: 1 - x**2,
    "extremes": lambda x: x.abs(),
}


def _taught(batch: Batch) -> torch.Tensor:
    """Return (n,): True for examples with a label."""
    return (
        answer_mask(batch).any(1)
        if "input_ids" in batch
        else torch.ones(len(batch["labels"]), dtype=torch.bool, device=batch["labels"].device)
    )


def _losses(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return each example's mean loss, (n,)."""
    if "input_ids" in batch:
        return -row_means(token_log_probs(model, batch), answer_mask(batch))
    return functional.cross_entropy(at_least_single(model(batch["inputs"])), batch["labels"], reduction="none")
