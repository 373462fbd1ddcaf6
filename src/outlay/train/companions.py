"""Companions: what a stage's objective keeps beside the model, a frozen copy to compare with or a part that is trained along."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from outlay.objectives.base import Attaches, Binds, Objective
from outlay.rng import derive

#: before the number of the stage, the name of the submodule that an objective attaches
ATTACHED = "attached_"
#: attribute of the model that names the submodule of the stage being spent
_NOW = "_attached_now"


class Frozen:
    """The model as it was when a stage began, in evaluation mode and without gradients; copied when first asked for.

    Weights that are not trained, as below an adapter, are shared with the model.

    Args:
        module: the model, without accelerate's wrapping.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._copy: nn.Module | None = None

    def __call__(self) -> nn.Module:
        """Return the copy, the same one each time."""
        if self._copy is None:
            shared = {id(p): p for p in self._module.parameters() if not p.requires_grad}
            with _without_gradients(self._module):
                self._copy = copy.deepcopy(self._module, dict(shared))
            self._copy.requires_grad_(False).eval()
        return self._copy

    @property
    def used(self) -> bool:
        """Whether anybody asked for it."""
        return self._copy is not None

    def refresh(self) -> None:
        """Take over the model's weights as they are now."""
        if self._copy is not None:
            self._fill(changing(self._module))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the weights and buffers that differ from the model's, for saving; none before anybody asked for the copy."""
        return {name: place.detach().cpu().clone() for name, place in self._places().items()} if self._copy is not None else {}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up saved weights."""
        self()
        self._fill(tensors)

    def _fill(self, tensors: Mapping[str, torch.Tensor]) -> None:
        places = self._places()
        with torch.no_grad():
            for name, tensor in tensors.items():
                places[name].copy_(tensor)

    def _places(self) -> dict[str, torch.Tensor]:
        assert self._copy is not None
        everything = dict(self._copy.named_parameters()) | dict(self._copy.named_buffers())
        return {name: everything[name] for name in changing(self._module)}


def changing(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return what training changes of a module, by name: trained parameters, shared ones once, and the buffers that are saved with it."""
    kept = module.state_dict().keys()
    weights: dict[str, torch.Tensor] = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return weights | {name: buffer for name, buffer in module.named_buffers() if name in kept}


@contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Set gradients aside, which a copy would carry along."""
    kept = [(p, p.grad) for p in module.parameters()]
    for p, _ in kept:
        p.grad = None
    try:
        yield
    finally:
        for p, gradient in kept:
            p.grad = gradient


def bound(objective: Objective, frozen: Frozen) -> Objective:
    """Return the objective as the stage uses it."""
    return objective.bind(frozen) if isinstance(objective, Binds) else objective


def attach(module: nn.Module, objective: Objective, index: int, seed: int) -> None:
    """Give the model the part that the objective of stage ``index`` trains beside it."""
    if isinstance(objective, Attaches):
        part = objective.attach(module, derive(seed, f"attached/{index}"))
        parameter = next(module.parameters())
        module.add_module(f"{ATTACHED}{index}", part.to(parameter.device, parameter.dtype))


def turn_to(module: nn.Module, index: int) -> None:
    """Let objectives find the part of stage ``index``."""
    setattr(module, _NOW, f"{ATTACHED}{index}")


def belongs(name: str, index: int) -> bool:
    """Say whether a parameter is trained in stage ``index``: all are, but for the parts of other stages' objectives."""
    return not name.startswith(ATTACHED) or name.startswith(f"{ATTACHED}{index}.")


@contextmanager
def bare(module: nn.Module) -> Iterator[None]:
    """Take the attached parts off the model for the time of a ``with`` block, as when it is exported."""
    parts = {name: part for name, part in module.named_children() if name.startswith(ATTACHED)}
    for name in parts:
        delattr(module, name)
    try:
        yield
    finally:
        for name, part in parts.items():
            module.add_module(name, part)
