"""FedHyper: learning rates of federated averaging from how well successive rounds agree.

One round: every client trains from the global weights w_{t-1}; their mean is w_agg; Delta_t = w_agg - w_{t-1}. What must remember from round
to round is the controller ``FedHyper``; the rest are plain functions on updates, mappings of parameter name to tensor:

- G: observe <Delta_{t-1}, Delta_t>, then w_t = ``server_step(w_agg, Delta_t, value - 1)``.
- GM: observe <M_{t-1}, Delta_t>, then w_t = ``server_step(w_agg, M_t, value - 1)`` with M_t = ``with_momentum(Delta_t, M_{t-1})``, M_0 = Delta_0.
- SL: observe <Delta_{t-1}, Delta_t>; clients train with value times their learning rate in the next round.
- CL: each client multiplies its learning rate by ``client_multiplier(...)`` after each of its steps but the first.
- FULL: CL on the clients and GM on the server.

The inner product grows with the square of the updates' size, so the rule depends on the model's scale; ``alignment(..., cosine=True)`` does not,
and is not the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from outlay.catalog import Paper
from outlay.record import Record
from outlay.schedules.base import require

if TYPE_CHECKING:
    from torch import Tensor

Form = Literal["global", "global_momentum", "local"]

#: (smallest, largest) multiplier of each form; those of ``local`` are the learning rates 0.001 and 0.1 at an initial one of 0.01
BOUNDS: dict[Form, tuple[float, float]] = {"global": (0.2, 5.0), "global_momentum": (0.8, 5.0), "local": (0.1, 10.0)}


@dataclass
class _State:
    total: float = 0.0


@dataclass
class FedHyper:
    """The server's side: m_t = clip(1 + s_t, low, high), s_t the running sum of the rounds' alignments h = <Delta_{t-1}, Delta_t>.

    For ``global`` and ``global_momentum`` m is the server's learning rate and the clipped sum is what goes on, so a bound is left at
    once when rounds change their mind; for ``local`` m multiplies the clients' learning rate and the sum itself is not clipped, both as in
    the authors' code. h is read from the metric ``round_alignment``; a round without it, such as the first, changes nothing. The server
    observes the round and reads the knob afterwards, before it applies Delta_t.

    Args:
        form: which of the paper's rules m is for; it chooses the bounds.
        low: smallest multiplier, > 0 and at most 1; None takes the form's, 0.2, 0.8 and 0.1.
        high: largest multiplier, >= 1; None takes the form's, 5, 5 and 10.
    """

    title: ClassVar[str] = "FedHyper"
    paper: ClassVar[Paper | None] = Paper(
        "2310.03156",
        "FedHyper: A Universal and Robust Learning Rate Scheduler for Federated Learning with Hypergradient Descent",
        2023,
    )

    form: Form = "global"
    low: float | None = None
    high: float | None = None
    _state: _State = field(default_factory=_State, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.form in BOUNDS, f"form must be one of {', '.join(BOUNDS)}, found {self.form!r}")
        require(self.low is None or 0 < self.low <= 1, f"low must lie in (0, 1], or be None, found {self.low}")
        require(self.high is None or 1 <= self.high < math.inf, f"high must be finite and >= 1, or None, found {self.high}")

    def value(self, progress: float) -> float:
        """Return the multiplier reached so far; progress does not enter."""
        return self._clipped(1.0 + self._state.total)

    def observe(self, record: Record) -> None:
        """Add a round's alignment."""
        alignment = record.quantity("round_alignment")
        if record.kind != "step" or alignment is None or not math.isfinite(alignment):
            return
        total = self._state.total + alignment
        self._state.total = total if self.form == "local" else self._clipped(1.0 + total) - 1.0

    def _clipped(self, multiplier: float) -> float:
        low, high = BOUNDS[self.form]
        return min(high if self.high is None else self.high, max(low if self.low is None else self.low, multiplier))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._state = _State(**state)


def alignment(one: Mapping[str, Tensor], other: Mapping[str, Tensor], *, cosine: bool = False) -> float:
    """Return <one, other> over all parameters.

    Args:
        one: an update, parameter name to tensor.
        other: an update of the same names and shapes.
        cosine: divide by both norms, so that the size of the updates does not matter; 0 where either is zero.
    """
    require(one.keys() == other.keys(), f"both updates must hold the same parameters, found {sorted(one)} and {sorted(other)}")
    product = _dot(one, other)
    if not cosine:
        return product
    norms = math.sqrt(_dot(one, one) * _dot(other, other))
    return product / norms if norms > 0 else 0.0


def _dot(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return math.fsum(float((one[name] * other[name]).sum()) for name in one)


def with_momentum(update: Mapping[str, Tensor], last: Mapping[str, Tensor], momentum: float = 0.9) -> dict[str, Tensor]:
    """Return M_t = Delta_t + momentum M_{t-1}, the direction of the form GM; new tensors.

    Args:
        update: Delta_t, parameter name to tensor.
        last: M_{t-1}; Delta_0 after the first round.
        momentum: in [0, 1).
    """
    require(0 <= momentum < 1, f"momentum must lie in [0, 1), found {momentum}")
    return {name: delta + momentum * last[name] for name, delta in update.items()}


def server_step(aggregated: Mapping[str, Tensor], direction: Mapping[str, Tensor], extra: float) -> dict[str, Tensor]:
    """Return w_t = w_agg + extra direction; new tensors. extra = 0 is federated averaging.

    Args:
        aggregated: w_agg, the mean of the clients' weights; parameter name to tensor.
        direction: Delta_t for the form G, M_t for GM.
        extra: s_t, the controller's value minus 1.
    """
    return {name: weight + extra * direction[name] for name, weight in aggregated.items()}


def client_multiplier(
    multiplier: float,
    step: Mapping[str, Tensor],
    last_step: Mapping[str, Tensor],
    round_update: Mapping[str, Tensor],
    clients: int,
    *,
    share: float = 0.1,
    fastest: float = 1.1,
    bounds: tuple[float, float] = (0.1, 10.0),
) -> float:
    """Return a client's next learning-rate multiplier, the form CL; it starts at 1 in each round and the first step does not change it.

    beta <- clip(beta min(fastest, 1 + <d_t, d_{t-1}> + share <d_t, Delta> / clients), bounds).

    Args:
        multiplier: beta so far.
        step: d_t, what the client's step changed: parameter name to tensor.
        last_step: d_{t-1}. At a round's second step the authors' code takes the last round's Delta here.
        round_update: Delta, the server's update of the last round; zeros in the first.
        clients: clients in a round, >= 1.
        share: weight of the agreement with the server.
        fastest: largest factor of one step, > 0.
        bounds: smallest and largest multiplier.
    """
    require(clients >= 1, f"clients must be >= 1, found {clients}")
    factor = min(fastest, 1.0 + alignment(step, last_step) + share * alignment(step, round_update) / clients)
    return min(bounds[1], max(bounds[0], multiplier * factor))
