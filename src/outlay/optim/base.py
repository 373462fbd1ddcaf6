"""The optimizer seam: a torch optimizer plus what its state will weigh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import nn

#: key of a parameter group under which factors for single knobs stand: {"weight_decay": 0.0} exempts the group
SCALES = "scales"


@runtime_checkable
class OptimizerSpec(Protocol):
    """Describes an optimizer. ``knobs`` maps each group field that a recipe may drive to its value when it does not."""

    knobs: ClassVar[dict[str, float]]

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        """Return the optimizer over named parameters. Groups may carry ``scales``: knob -> factor."""
        ...

    def state_bytes(self, shapes: Sequence[Sequence[int]], element_size: int = 4) -> int:
        """Return how many bytes the state takes for parameters of these shapes and this many bytes an element."""
        ...


def decay_groups(parameters: Sequence[tuple[str, nn.Parameter]]) -> list[dict[str, object]]:
    """Split parameters into matrices, which decay, and vectors (biases, norms), which do not."""
    matrices = [p for _, p in parameters if p.dim() >= 2]
    vectors = [p for _, p in parameters if p.dim() < 2]
    groups: list[dict[str, object]] = [{"params": matrices, SCALES: {}}, {"params": vectors, SCALES: {"weight_decay": 0.0}}]
    return [group for group in groups if group["params"]]


def follow(optimizer: torch.optim.Optimizer, name: str, value: float) -> None:
    """Write a knob's value into every parameter group, times the group's own factor for it."""
    for group in optimizer.param_groups:
        group[name] = value * group.get(SCALES, {}).get(name, 1.0)
