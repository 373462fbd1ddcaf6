"""Domain losses: the held-out loss of every domain of a mixture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.evaluations.base import ChargeBatch, Sitting
from outlay.evaluations.held_out_loss import HeldOutLoss
from outlay.objectives.base import Objective
from outlay.objectives.next_token import NextToken
from outlay.sources.base import Source
from outlay.sources.mixture import Mixture


@dataclass(frozen=True)
class DomainLosses:
    """Mean loss over held-out examples of each domain of a mixture, as ``<name>/<domain>``, and the objective's other measures as
    ``<name>/<domain>/<measure>``. Teachers of mixtures learn from it.

    Args:
        objective: the loss that is measured.
        source: the mixture; None for the last stage's source, which must then be one.
        examples: how many of each domain at most, > 0; a fixed random choice.
        batch_size: examples a forward pass, > 0.
        name: prefix of the metrics; the mixture's ``watch``.
        part: from where to where in each domain's held-out examples, as shares of them in [0, 1]; as of ``held_out_loss``.
    """

    title: ClassVar[str] = "Held-out loss of every domain"
    paper: ClassVar[Paper | None] = None

    objective: Objective = field(default_factory=NextToken)
    source: Source | None = None
    examples: int = 128
    batch_size: int = 64
    name: str = "held_out_loss"
    part: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        self._of("", None)

    def _of(self, domain: str, source: Source | None) -> HeldOutLoss:
        return HeldOutLoss(self.objective, source, self.examples, self.batch_size, f"{self.name}/{domain}", self.part)

    def open(self, context: Context, source: Source) -> _Sittings:
        """Return every domain's held-out batches.

        Raises:
            InputError: when the source is no mixture, or a domain holds nothing out.
        """
        mixture = self.source or source
        if not isinstance(mixture, Mixture):
            raise InputError(
                f"evaluations/domain_losses measures the domains of sources/mixture, found {type(mixture).__name__}; use held_out_loss"
            )
        sittings = {name: self._of(name, domain).open(context, domain) for name, domain in mixture.domains.items()}
        return _Sittings({f"{self.name}/{name}": sitting for name, sitting in sittings.items()})


@dataclass(frozen=True)
class _Sittings:
    parts: dict[str, Sitting]

    def bound(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for sitting in self.parts.values():
            for unit, amount in sitting.bound().items():
                total[unit] = total.get(unit, 0.0) + amount
        return total

    def run(self, model: nn.Module, charge: ChargeBatch) -> dict[str, float]:
        found: dict[str, float] = {}
        for prefix, sitting in self.parts.items():
            for name, value in sitting.run(model, charge).items():
                found[prefix if name == f"{prefix}/loss" else name] = value
        return found
