"""f-divergence fine-tuning: supervised learning that feels how far it has come from where it began."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.objectives.base import Objective
from outlay.objectives.references import bound, log_ratios, token_count, token_mean, with_reference
from outlay.objectives.sequences import Frozen, answer_mask, token_log_probs
from outlay.schedules.base import require
from outlay.sources.base import Batch

#: divergence -> f*(-rho), the conjugate of its generator at minus the log ratio
CONJUGATES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "total_variation": lambda rho: -rho,
    "pearson": lambda rho: -rho + 0.25 * rho**2,
    "kl": lambda rho: torch.expm1(-rho),
}


@dataclass(frozen=True)
class FDivergence:
    """Supervised fine-tuning as matching of an f-divergence: (1/n) sum f*(-rho_t), rho_t = log pi(y_t | x, y_<t) - log pi_ref(y_t | x, y_<t).

    In imitation the reward r that tells the expert from the model best maximises -E_expert[f*(-r)] + ..., f* being the convex conjugate of the
    divergence's generator f; with the implicit reward r = rho the term of the model is constant, and E_expert[f*(-rho)] is left to minimise:

        total_variation  f(t) = |t - 1| / 2         f*(u) = u             loss -rho               plain fine-tuning, up to a constant
        pearson          f(t) = (t - 1)^2           f*(u) = u + u^2 / 4   loss -rho + rho^2 / 4   least at rho = 2: no token goes far from pi_ref
        kl               f(t) = t log t - t + 1     f*(u) = e^u - 1       loss e^-rho - 1         weight pi_ref / pi, dying out as a token is learnt

    Every loss has the gradient of plain fine-tuning where pi = pi_ref. The scale of rho in the paper is not known here: one token, coefficient 1.
    Divergences whose conjugate ends somewhere (reverse KL, Hellinger, Jensen-Shannon: infinite once a token has lost enough) are left out, as one
    such token would make the loss infinite. For ``total_variation`` only |u| <= 1/2 is in the domain; as in the paper its linear form is taken.

    Args:
        divergence: ``pearson``, ``kl`` or ``total_variation``.
    """

    title: ClassVar[str] = "f-divergence fine-tuning"
    paper: ClassVar[Paper | None] = Paper("2507.00018", "Implicit Reward as the Bridge: A Unified View of SFT and DPO Connections", 2025)
    knobs: ClassVar[dict[str, float]] = {}

    divergence: Literal["pearson", "kl", "total_variation"] = "pearson"
    _frozen: Frozen | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.divergence in CONJUGATES, f"divergence must be one of {', '.join(CONJUGATES)}, found {self.divergence!r}")

    @property
    def passes(self) -> float:
        """Forward passes that preparing takes: one of the reference."""
        return 1.0

    def bind(self, frozen: Frozen) -> Objective:
        """Return the objective with its reference."""
        return bound(self, frozen)

    def prepare(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> Batch:
        """Return the batch with the column ``reference``.

        Raises:
            InputError: when the objective has not been bound to a frozen model.
        """
        return with_reference(self._frozen, batch, "objectives/f_divergence")

    def weight(self, batch: Batch) -> float:
        """Return the number of labelled tokens."""
        return token_count(batch)

    def __call__(self, model: nn.Module, batch: Batch, knobs: Mapping[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss of ``input_ids`` (n, T) against ``labels`` (n, T) with ``reference`` (n, T), and the mean ``log_ratio``.

        Raises:
            InputError: when the batch was not prepared.
        """
        mask = answer_mask(batch)
        rho = log_ratios(token_log_probs(model, batch), batch, "objectives/f_divergence")
        return token_mean(CONJUGATES[self.divergence](rho), mask), {"log_ratio": token_mean(rho.detach(), mask)}
