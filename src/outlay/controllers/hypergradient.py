"""Hypergradient descent: raise the learning rate while gradients agree with the last update, lower it when they turn against it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from outlay.catalog import Paper
from outlay.record import Record
from outlay.schedules.base import require


@dataclass
class _State:
    multiplier: float = 1.0
    last_norm: float | None = None


@dataclass
class Hypergradient:
    """Gradient descent on the learning rate itself, from h_t = g_t . d_{t-1}, minus the loss's derivative by the last learning rate.

    g_t is the gradient and d_{t-1} = (w_{t-2} - w_{t-1}) / lr_{t-1} the direction of the last update, g_{t-1} with plain SGD.
    Additive: m <- m + beta h_t. Multiplicative: m <- m (1 + beta c_t) with c_t = h_t / (|g_t| |g_{t-1}|), the cosine of the two gradients
    with plain SGD; it does not depend on the scale of the loss. With other optimizers, or with clipping, the ratio is not a cosine and
    is cut to [-1, 1]. Both are kept in [minimum, maximum].

    The multiplier is relative to the knob's peak, so the additive ``beta`` is the paper's divided by the peak. The paper applies the rate
    of step t in step t; here a knob is read before its step, so it is applied in step t + 1. A step that was skipped or has no
    alignment changes nothing. The default form, ``beta`` for it, and the bounds, which the paper does not have, are our choice.

    Args:
        form: ``multiplicative`` or ``additive``.
        beta: step of the multiplier; > 0, below 1 for the multiplicative form.
        minimum: smallest multiplier, > 0 and at most 1.
        maximum: largest multiplier, >= 1.
    """

    title: ClassVar[str] = "Hypergradient descent"
    paper: ClassVar[Paper | None] = Paper("1703.04782", "Online Learning Rate Adaptation with Hypergradient Descent", 2017)
    needs: ClassVar[tuple[str, ...]] = ("descent_alignment",)

    form: Literal["multiplicative", "additive"] = "multiplicative"
    beta: float = 0.02
    minimum: float = 0.01
    maximum: float = 100.0
    _state: _State = field(default_factory=_State, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.form in ("multiplicative", "additive"), f"form must be multiplicative or additive, found {self.form!r}")
        highest = 1.0 if self.form == "multiplicative" else math.inf
        require(0 < self.beta < highest, f"beta must lie in (0, {highest:g}) for the {self.form} form, found {self.beta}")
        require(0 < self.minimum <= 1, f"minimum must lie in (0, 1], found {self.minimum}")
        require(1 <= self.maximum < math.inf, f"maximum must be finite and >= 1, found {self.maximum}")

    def value(self, progress: float) -> float:
        """Return the multiplier reached so far; progress does not enter."""
        return self._state.multiplier

    def observe(self, record: Record) -> None:
        """Move the multiplier along a step's alignment."""
        if record.kind != "step" or record.outcome != "ok":
            return
        state, alignment, norm = self._state, record.quantity("descent_alignment"), record.gradient_norm
        if alignment is not None and math.isfinite(alignment):
            moved = (
                state.multiplier + self.beta * alignment if self.form == "additive" else state.multiplier * self._factor(alignment, norm)
            )
            state.multiplier = min(self.maximum, max(self.minimum, moved))
        # kept only for the form that reads it
        state.last_norm = norm if self.form == "multiplicative" and norm is not None and math.isfinite(norm) else None

    def _factor(self, alignment: float, norm: float | None) -> float:
        scale = (norm or 0.0) * (self._state.last_norm or 0.0)
        if not 0.0 < scale < math.inf:
            return 1.0
        return 1.0 + self.beta * min(1.0, max(-1.0, alignment / scale))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._state = _State(**state)
