"""Dynamic fine-tuning and its anchored form: supervised learning whose gradient is that of the probability, not of its logarithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from outlay.catalog import Paper
from outlay.objectives.base import Objective
from outlay.objectives.references import bound, frozen_model, token_count, token_mean
from outlay.objectives.sequences import Frozen, answer_logits, answer_mask, token_log_probs
from outlay.sources.base import Batch


@dataclass(frozen=True)
class DynamicFineTuning:
    """Next-token cross entropy, each token weighted by its own probability: -(1/n) sum sg(p_t) log p_t, with sg() held fixed.

    The gradient is that of -(1/n) sum p_t: tokens that the model holds to be unlikely (noise, contradictions) count little. It has no anchor and
    may drift; see ``AnchoredFineTuning``. Probabilities are computed in single precision or better, since rounding them undoes the weights.
    """

    title: ClassVar[str] = "Dynamic fine-tuning (DFT)"
    paper: ClassVar[Paper | None] = Paper(
        "2508.05629", "On the Generalization of SFT: A Reinforcement Learning Perspective with Reward Rectification", 2025
    )
    knobs: ClassVar[dict[str, float]] = {}

    def weight(self, batch: Batch) -> float:
        """Return the number of labelled tokens."""
        return token_count(batch)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss of ``input_ids`` (n, T) against ``labels`` (n, T), and the mean ``probability`` of a labelled token."""
        log_probs, mask = token_log_probs(model, batch), answer_mask(batch)
        probabilities = log_probs.detach().exp()
        return token_mean(-probabilities * log_probs, mask), {"probability": token_mean(probabilities, mask)}


@dataclass(frozen=True)
class AnchoredFineTuning:
    """Dynamic fine-tuning held near the model that the stage began with: (1/n) sum (-sg(p_t) log p_t + kl_weight KL_t).

    KL_t = KL(pi_ref(. | x, y_<t) || pi(. | x, y_<t)) over the whole vocabulary, the direction of the authors' code. Knob ``kl_weight`` >= 0; the
    authors' command has 0.05, their function 0.1. With kl_weight = 0 the loss is that of ``DynamicFineTuning``, and no reference is kept or run.
    """

    title: ClassVar[str] = "Anchored supervised fine-tuning (ASFT)"
    paper: ClassVar[Paper | None] = Paper("2509.23753", "Anchored Supervised Fine-Tuning", 2025)
    knobs: ClassVar[dict[str, float]] = {"kl_weight": 0.05}

    _frozen: Frozen | None = field(default=None, init=False, repr=False, compare=False)

    def bind(self, frozen: Frozen) -> Objective:
        """Return the objective with its reference."""
        return bound(self, frozen)

    def weight(self, batch: Batch) -> float:
        """Return the number of labelled tokens."""
        return token_count(batch)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss of ``input_ids`` (n, T) against ``labels`` (n, T), the mean ``probability`` of a labelled token, and the mean
        ``kl`` in nats.

        Raises:
            InputError: when the objective has not been bound to a frozen model and kl_weight is not 0.
        """
        kl_weight = knobs.get("kl_weight", self.knobs["kl_weight"])
        rows = functional.log_softmax(answer_logits(model, batch), -1)
        wanted = batch["labels"][:, 1:][answer_mask(batch)]
        count = max(1, len(wanted))
        log_probs = rows.gather(-1, wanted[:, None]).squeeze(-1)
        probabilities = log_probs.detach().exp()
        loss = -(probabilities * log_probs).sum() / count
        measures = {"probability": probabilities.sum() / count}
        if kl_weight == 0:
            return loss, measures
        with torch.no_grad():
            anchor = functional.log_softmax(answer_logits(frozen_model(self._frozen, "objectives/asft"), batch), -1)
        divergence = (anchor.exp() * (anchor - rows)).sum() / count
        return loss + kl_weight * divergence, {**measures, "kl": divergence.detach()}
