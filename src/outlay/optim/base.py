"""The optimizer seam: a torch optimizer plus what its state will weigh."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import nn

from outlay.errors import InputError, MissingExtra

#: key of a parameter group under which factors for single knobs stand: {"weight_decay": 0.0} exempts the group
SCALES = "scales"


@runtime_checkable
class OptimizerSpec(Protocol):
    """Describes an optimizer. ``knobs`` maps each group field that a recipe may drive to its value when it does not."""

    @property
    def knobs(self) -> dict[str, float]:
        """What may be driven, with its value when it is not; a class attribute with most."""
        ...

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return the optimizer over named parameters. Groups may carry ``scales``: knob -> factor. What is random comes from streams of ``seed``."""
        ...

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """Return the most bytes that the state takes for parameters of these names and shapes and this many bytes an element."""
        ...


def by_name(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[tuple[str, nn.Parameter]]:
    """Return parameters with their names as a list, so that a generator is read once.

    Raises:
        InputError: when they come without names, as torch's own optimizers take them.
    """
    found = list(parameters)
    odd = next((one for one in found if not (isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str))), None)
    if odd is not None:
        raise InputError(f"parameters are handed over by name, found {type(odd).__name__}; pass list(model.named_parameters())")
    return found


def decay_groups(parameters: Sequence[tuple[str, nn.Parameter]]) -> list[dict[str, object]]:
    """Split parameters into matrices, which decay, and vectors (biases, norms), which do not."""
    named = by_name(parameters)
    matrices, vectors = [p for _, p in named if p.dim() >= 2], [p for _, p in named if p.dim() < 2]
    groups: list[dict[str, object]] = [{"params": matrices, SCALES: {}}, {"params": vectors, SCALES: {"weight_decay": 0.0}}]
    return [group for group in groups if group["params"]]


def follow(optimizer: torch.optim.Optimizer, name: str, value: float) -> None:
    """Write a knob's value into every parameter group, times the group's own factor for it."""
    for group in optimizer.param_groups:
        group[name] = value * group.get(SCALES, {}).get(name, 1.0)


@runtime_checkable
class Spares(Protocol):
    """An optimizer spec that needs no gradient of the whole model at once, so that nothing may look at it: no clipping of its norm, no measuring.

    ``whole_batch``: whether a batch must be computed in one piece; ``forward_passes``: how many passes without gradients an update takes instead of
    a forward and backward pass, 0 for those that take the usual ones.
    """

    whole_batch: ClassVar[bool]

    @property
    def forward_passes(self) -> int:
        """Forward passes an update over the batch."""
        ...

    def gradient_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """Return the most bytes of gradients that are held at once."""
        ...


@runtime_checkable
class StepsInBackward(Protocol):
    """An optimizer that takes each parameter's step as soon as its gradient is complete, and frees the gradient."""

    def armed(self) -> AbstractContextManager[None]:
        """``with optimizer.armed():`` backward passes take steps."""
        ...

    def gradient_norm(self) -> float:
        """Return the norm over all gradients since it was armed last."""
        ...


@runtime_checkable
class Explores(Protocol):
    """An optimizer that asks for losses instead of gradients."""

    def explore(self, loss: Callable[[], float], share: Callable[[bytes], list[bytes]], rank: int) -> float:
        """Take a step and return the loss where it began, as estimated.

        Args:
            loss: loss of this process's part of the batch at the weights as they are now; the same randomness at every call.
            share: hands this process's bytes to all and returns everybody's, by rank.
            rank: this process's.
        """
        ...


@runtime_checkable
class Averages(Protocol):
    """An optimizer spec whose weights to be used are other ones than those that its gradients are taken at.

    The loop evaluates on them and goes on from where it was, bit by bit; when a stage ends they become the model's.
    """

    def averages(self, optimizer: torch.optim.Optimizer) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the parameters that differ, each with the values to use; neither the parameters nor the optimizer are changed."""
        ...


def settle(spec: OptimizerSpec, optimizer: torch.optim.Optimizer) -> None:
    """Give the model the weights that are to be used; nothing to do for a spec without ``averages``."""
    if isinstance(spec, Averages):
        with torch.no_grad():
            for parameter, value in spec.averages(optimizer):
                parameter.copy_(value)


@contextmanager
def settled(spec: OptimizerSpec, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """``with settled(spec, optimizer):`` the model has the weights to be used; after it exactly those that it had before."""
    if not isinstance(spec, Averages):
        yield
        return
    parameters = [parameter for parameter, _ in spec.averages(optimizer)]
    kept = [parameter.detach().clone() for parameter in parameters]
    settle(spec, optimizer)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def maintained() -> ModuleType:
    """Return the package ``pytorch_optimizer``, which maintains optimizers that are not written here.

    Raises:
        MissingExtra: when it is not installed.
    """
    try:
        import pytorch_optimizer
    except ImportError:
        raise MissingExtra("pytorch_optimizer", "optim") from None
    return pytorch_optimizer
