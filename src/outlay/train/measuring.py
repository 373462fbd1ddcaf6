"""Measuring: what a step sees only when somebody asks, since it costs time or memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

#: what may be asked for, by a stage's ``measure`` or by a controller's ``needs``; each appears among a record's metrics under its name
MEASURES = ("gradient_l1", "descent_alignment")

Named = Sequence[tuple[str, nn.Parameter]]


class Measuring:
    """Measures gradients and updates of a stage.

    gradient_l1 = sum_i |g_i| over the whole gradient, before clipping. descent_alignment = g_t . d_{t-1}, with g_t before clipping and
    d_{t-1} = (w_{t-2} - w_{t-1}) / lr_{t-1} the direction of the update before, weight decay and all; with plain SGD that is g_{t-1}.
    It is left out where there is no such direction: at the first step, and after an update at a learning rate of 0.

    Args:
        asked: names from ``MEASURES``.
    """

    def __init__(self, asked: Iterable[str] = ()) -> None:
        self.asked = frozenset(asked)
        #: direction of the last update by parameter; empty when there is none or nobody asks. It takes as much memory as the weights trained.
        self.direction: dict[str, torch.Tensor] = {}

    def gradient(self, parameters: Named) -> dict[str, float]:
        """Return what is asked of a gradient that has been computed and not clipped; what is not finite is left out."""
        gradients = {name: p.grad.detach() for name, p in parameters if p.grad is not None}
        sums: dict[str, list[torch.Tensor]] = {}
        if "gradient_l1" in self.asked:
            sums["gradient_l1"] = [gradient.abs().sum() for gradient in gradients.values()]
        if "descent_alignment" in self.asked and self.direction:
            sums["descent_alignment"] = [(gradients[name] * along).sum() for name, along in self.direction.items() if name in gradients]
        found = {name: _total(parts) for name, parts in sums.items() if parts}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def before_update(self, parameters: Named) -> None:
        """Keep the weights, if the direction of the update that comes will be asked for."""
        if "descent_alignment" in self.asked:
            self.direction = {name: p.detach().clone() for name, p in parameters}

    def after_update(self, parameters: Named, rate: float | None) -> None:
        """Work out the direction of the update that was made at the learning rate ``rate``."""
        if not self.direction:
            return
        if not rate:
            self.direction = {}
            return
        for name, p in parameters:
            self.direction[name].sub_(p.detach()).div_(rate)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors that the next step will need, on the CPU."""
        return {name: along.cpu().clone() for name, along in self.direction.items()}

    def load_state(self, state: dict[str, torch.Tensor], parameters: Named) -> None:
        """Take up what ``state`` returned."""
        self.direction = {name: state[name].to(p.device, copy=True) for name, p in parameters if name in state}


def _total(parts: list[torch.Tensor]) -> float:
    return float(torch.stack([part.double() for part in parts]).sum())  # one wait for the device, not one a tensor
