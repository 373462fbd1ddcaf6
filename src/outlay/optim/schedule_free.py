"""Schedule-free AdamW: averaging in place of a schedule, by pytorch_optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.optim.base import decay_groups, maintained


@dataclass(frozen=True)
class ScheduleFree:
    """AdamW whose weights to be used are an average of its iterates, so that no decay of the learning rate is needed; pytorch_optimizer's.

    Gradients g are taken at y, the average is x:

        y = (1 - beta1) z + beta1 x,  z <- z - lr (g / (sqrt(v_hat) + eps) + weight_decay y),  x <- (1 - c) x + c z

    with c = lr^2 / (sum of all lr^2 so far), lr the largest seen. The model holds y while it is trained; evaluations and the final weights use x
    (``averages``). Put a constant on the knob ``lr``, after a warm-up at most. Vectors do not decay. Statistics of batch normalisation are
    those of y, not of x.

    Args:
        beta1: weight of the average in y, in (0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
    """

    title: ClassVar[str] = "Schedule-free AdamW"
    paper: ClassVar[Paper | None] = Paper("2405.15682", "The Road Less Scheduled", 2024)
    coupled: ClassVar[bool] = True
    knobs: ClassVar[dict[str, float]] = {"lr": 2.5e-3, "weight_decay": 0.0}

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not (0 < self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"beta1 must lie in (0, 1) and beta2 in [0, 1), found {self.beta1} and {self.beta2}")
        if self.eps <= 0:
            raise ValueError(f"eps must be > 0, found {self.eps}")
        maintained()

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return pytorch_optimizer's ScheduleFreeAdamW over the parameters, in training mode."""
        optimizer: torch.optim.Optimizer = maintained().ScheduleFreeAdamW(
            decay_groups(parameters), lr=self.knobs["lr"], betas=(self.beta1, self.beta2), eps=self.eps,
            weight_decay=self.knobs["weight_decay"],
        )  # fmt: skip
        return optimizer

    def averages(self, optimizer: torch.optim.Optimizer) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return every parameter that was trained with its average x = z + (y - z) / beta1."""
        return [(y, state["z"] + (y.detach() - state["z"]) / self.beta1) for y, state in optimizer.state.items() if "z" in state]

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """The iterate z and the second moment: twice the parameters."""
        return sum(2 * math.prod(shape) * element_size for shape in shapes.values())
