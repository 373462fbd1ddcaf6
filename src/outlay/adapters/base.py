"""The adapter seam: a module made trainable in fewer parameters, and what an adapter does while the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from outlay.errors import InputError, nearest


@runtime_checkable
class Adapter(Protocol):
    """Puts a small trainable part on a model and takes it off again.

    Whatever changes while it is trained is a parameter or a saved buffer of the module, so that a checkpoint holds it.
    """

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with the adapter on it; what it does not train requires no gradient."""
        ...

    def merge(self, module: nn.Module) -> nn.Module:
        """Return a plain module of the original class that computes the same."""
        ...


@dataclass(frozen=True)
class Moment:
    """Where a run stands at an update.

    Args:
        step: number of the update, from 1.
        progress: share of the stage's budget spent before it, in [0, 1].
        seed: of the run; random choices come from the streams (seed, "adapter/" ..., step).
    """

    step: int
    progress: float
    seed: int = 0


@runtime_checkable
class Primes(Protocol):
    """An adapter that looks at data before the first update. What that takes is charged."""

    @property
    def prime_examples(self) -> int:
        """How many training examples it looks at, >= 0."""
        ...

    def prime(self, module: nn.Module, loss: Callable[[int], torch.Tensor], seed: int) -> None:
        """Set the adapter up.

        Args:
            module: with the adapter on.
            loss: number of the example, below ``prime_examples`` -> its loss, with a graph through whatever requires gradients when it is called;
                parameters that require gradients here must be put back to what ``attach`` left.
            seed: of the run.
        """
        ...


@runtime_checkable
class Follows(Protocol):
    """An adapter that acts around updates."""

    def before(self, module: nn.Module, moment: Moment) -> None:
        """Act before the update's forward pass: set what depends on progress."""
        ...

    def after(self, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        """Act after the update; gradients still stand in ``grad``. The optimizer's state of a parameter may be dropped (``forget``)."""
        ...


@runtime_checkable
class Penalises(Protocol):
    """An adapter with a term of its own in the loss."""

    def penalty(self, module: nn.Module) -> torch.Tensor:
        """Return what is added to the mean loss of an update, ()."""
        ...


def forget(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
    """Drop an optimizer's state of a parameter: its next step is a first step."""
    optimizer.state.pop(parameter, None)


class Reparametrised(nn.Module):
    """A linear layer whose weight, (out, in), is computed from other parameters: y = x W^T + b."""

    bias: nn.Parameter | None

    def effective(self) -> torch.Tensor:
        """Return W, (out, in), with a graph to what is trained."""
        raise NotImplementedError

    @property
    def weight(self) -> torch.Tensor:
        """W as it is now."""
        return self.effective()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b."""
        return functional.linear(x, self.effective(), self.bias)

    def plain(self) -> nn.Linear:
        """Return a linear layer that computes the same."""
        weight = self.effective().detach()
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=self.bias is not None, device="meta", dtype=weight.dtype)
        linear.weight = nn.Parameter(weight.clone())
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().clone())
        return linear


def check_bare(module: nn.Module) -> None:
    """Refuse a module that has an adapter on.

    Raises:
        InputError: saying so.
    """
    if any(isinstance(part, Reparametrised) or is_parametrized(part) or hasattr(part, "peft_config") for part in module.modules()):
        raise InputError("the model has an adapter on already; merge it first")


def linear_layers(module: nn.Module, targets: Sequence[str] = ()) -> list[tuple[str, nn.Linear]]:
    """Return the linear layers that an adapter works on, by name: those whose name ends in one of ``targets``; without any, all but the output layer.

    Raises:
        InputError: when no linear layer is named so, or when there is an adapter on already.
    """
    check_bare(module)
    getter = getattr(module, "get_output_embeddings", None)
    output = getter() if getter is not None else None
    layers = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not targets:
        chosen = [(name, part) for name, part in layers if part is not output]
    else:
        chosen = [(name, part) for name, part in layers if any(name == t or name.endswith(f".{t}") for t in targets)]
    if not chosen:
        known = sorted({name.rsplit(".", 1)[-1] for name, _ in layers})
        if any(type(part).__name__ == "Conv1D" for part in module.modules()):
            raise InputError(
                "the model has layers of transformers' Conv1D, as GPT-2 has, where this needs torch.nn.Linear; adapter: lora takes both"
            )
        if not targets:
            raise InputError("the model has no linear layer but the output layer; name that in targets, or take another adapter")
        raise InputError(f"the model has no linear layer named {', '.join(targets)}{nearest(targets[0], known)}")
    return chosen


def swap(module: nn.Module, make: Callable[[str, nn.Linear], nn.Module], targets: Sequence[str] = ()) -> nn.Module:
    """Replace linear layers in place by what ``make`` returns for (name, layer); return the module."""
    for name, layer in linear_layers(module, targets):
        module.set_submodule(name, make(name, layer))
    return module


def reparametrised(module: nn.Module) -> Iterator[tuple[str, Reparametrised]]:
    """Return the reparametrised layers, by name."""
    for name, part in module.named_modules():
        if isinstance(part, Reparametrised):
            yield name, part


def make_plain(module: nn.Module) -> nn.Module:
    """Replace every reparametrised layer in place by a linear one that computes the same; every parameter requires gradients again."""
    for name, part in list(reparametrised(module)):
        module.set_submodule(name, part.plain())
    return module.requires_grad_(True)
