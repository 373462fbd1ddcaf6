"""What layers share whose factors begin anew now and then: fresh draws, and small first updates after a restart."""

from __future__ import annotations

import torch
from torch import nn

from outlay.adapters.base import Reparametrised


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator, like: torch.Tensor) -> nn.Parameter:
    """Return a parameter drawn evenly from [-bound, bound], of the type and on the device of ``like``."""
    drawn = (torch.rand(shape, generator=generator) * 2 - 1) * bound
    return nn.Parameter(drawn.to(like.device, like.dtype))


def at_least_single(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that decompositions take: in float32, or as it is in float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def since_restart(step: int, period: int | None) -> int | None:
    """Return how many updates there have been since the last restart, this one (from 1) included; None before the first restart.

    Restarts come after the updates ``period``, 2 ``period`` and so on.
    """
    if period is None or step <= period:
        return None
    return (step - 1) % period + 1


class Restarting(Reparametrised):
    """A layer with factors that are restarted. The updates after a restart are made shorter, whatever the optimizer's learning rate.

    An optimizer's update is taken and then partly taken back, p <- p_before + share (p - p_before). Where an update is in proportion to the
    learning rate, as with SGD and AdamW and their weight decay, that is the update at ``share`` times the learning rate.
    """

    def __init__(self) -> None:
        super().__init__()
        # from `remember` to `shorten` within one update, so it needs no saving
        self._before: list[torch.Tensor] = []

    def factors(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters that are restarted."""
        raise NotImplementedError

    def remember(self) -> None:
        """Copy the factors as they are before an update."""
        self._before = [factor.detach().clone() for factor in self.factors()]

    @torch.no_grad()
    def shorten(self, share: float) -> None:
        """Leave ``share`` of the update that was made since ``remember``."""
        for factor, before in zip(self.factors(), self._before, strict=True):
            factor.copy_(torch.lerp(before, factor, share))
        self._before = []
