"""Tensors of any shape that are computed from others, in a module that stays what it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize

from outlay.adapters.base import check_bare
from outlay.errors import InputError, nearest


def chosen_tensors(module: nn.Module, targets: tuple[str, ...] = ()) -> dict[str, nn.Parameter]:
    """Return the parameters whose name is one of ``targets`` or ends in one, all without any; tied ones once, by their first name.

    Raises:
        InputError: when there is none, or when there is an adapter on already.
    """
    check_bare(module)
    named = dict(module.named_parameters())
    chosen = {name: p for name, p in named.items() if not targets or any(name == t or name.endswith(f".{t}") for t in targets)}
    if not chosen:
        known = sorted({name.rsplit(".", 1)[-1] for name in named})
        raise InputError(f"the model has no tensor named {', '.join(targets) or 'anything'}{nearest(targets[0] if targets else '', known)}")
    return chosen


def project(module: nn.Module, make: Callable[[str, torch.Tensor], nn.Module], names: set[str]) -> nn.Module:
    """Let the named parameters be computed by what ``make`` returns for (name, tensor), a module tensor -> tensor of its shape. A tied
    parameter is named once and computed by one module wherever it stands."""
    tensors = {id(p): (name, p) for name, p in module.named_parameters() if name in names}
    places = [(owner, own, p) for owner in list(module.modules()) for own, p in owner.named_parameters(recurse=False) if id(p) in tensors]
    made: dict[int, nn.Module] = {}
    for owner, own, p in places:
        if id(p) not in made:
            made[id(p)] = make(*tensors[id(p)])
        parametrize.register_parametrization(owner, own, made[id(p)])
    return module


def settle(module: nn.Module) -> nn.Module:
    """Put every computed parameter where it is now and compute it no more; tied parameters stay tied."""
    owners = [part for part in module.modules() if parametrize.is_parametrized(part)]
    places = [(owner, own, parts.original) for owner in owners for own, parts in owner.parametrizations.items()]  # type: ignore[union-attr, operator]
    values = {id(original): (original, getattr(owner, own).detach()) for owner, own, original in places}
    # not by remove_parametrizations: it takes the names off a class that a module shares with its copies
    for owner in owners:
        del owner.parametrizations
        owner.__class__ = type(owner).__bases__[0]
    with torch.no_grad():
        for original, value in values.values():
            original.copy_(value)
    for owner, own, original in places:
        owner.register_parameter(own, original)
    return module
