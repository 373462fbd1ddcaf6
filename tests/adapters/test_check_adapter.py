"""The contract of adapters refuses those that break it, each by its rule."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from outlay.adapters import Moment
from outlay.adapters.base import Reparametrised, make_plain, reparametrised, swap
from outlay.models import Mlp
from outlay.rng import torch_generator
from outlay.testing import check_adapter

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


class Shift(Reparametrised):
    """W = frozen + left right; right drawn, left 0."""

    def __init__(self, layer: nn.Linear, draw: torch.Generator) -> None:
        super().__init__()
        out, inner = layer.weight.shape
        self.frozen, self.bias, self.updates = layer.weight, layer.bias, 0
        self.left = nn.Parameter(torch.zeros(out, 2))
        self.right = nn.Parameter(torch.randn(2, inner, generator=draw))

    def effective(self) -> torch.Tensor:
        return self.frozen + self.left @ self.right


def shifts(module: nn.Module) -> list[Shift]:
    return [part for _, part in reparametrised(module) if isinstance(part, Shift)]


@dataclass(frozen=True)
class Sound:
    """Looks at an example, and takes half of what it has learnt back after every update."""

    prime_examples: ClassVar[int] = 1

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        return swap(module.requires_grad_(False), lambda name, layer: Shift(layer, torch_generator(seed, f"adapter/sound/{name}")))

    def prime(self, module: nn.Module, loss: Callable[[int], torch.Tensor], seed: int) -> None:
        with torch.no_grad():
            scale = float(loss(0))
            for part in shifts(module):
                part.right.mul_(1 + scale)

    def before(self, module: nn.Module, moment: Moment) -> None:
        pass

    @torch.no_grad()
    def after(self, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        for part in shifts(module):
            part.left.mul_(0.5)

    def merge(self, module: nn.Module) -> nn.Module:
        return make_plain(module)


class Careless(Sound):
    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return super().attach(module, seed)


class Counting(Sound):
    numbers: ClassVar[itertools.count[int]] = itertools.count()

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        return super().attach(module, seed + next(self.numbers))


class Idle(Sound):
    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        return super().attach(module, seed).requires_grad_(False)


class ByColumns(Sound):
    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        adapted = super().attach(module, seed)
        for part in shifts(adapted):
            part.right = nn.Parameter(part.right.detach().T.contiguous().T)
        return adapted


class ByColumnsOncePrimed(Sound):
    def prime(self, module: nn.Module, loss: Callable[[int], torch.Tensor], seed: int) -> None:
        for part in shifts(module):
            part.right.data = part.right.detach().T.contiguous().T


class Thawing(Sound):
    def prime(self, module: nn.Module, loss: Callable[[int], torch.Tensor], seed: int) -> None:
        module.requires_grad_(True)


class Littering(Sound):
    def prime(self, module: nn.Module, loss: Callable[[int], torch.Tensor], seed: int) -> None:
        loss(0).backward()  # type: ignore[no-untyped-call]


class Jumping(Sound):
    def prime(self, module: nn.Module, loss: Callable[[int], torch.Tensor], seed: int) -> None:
        for part in shifts(module):
            nn.init.ones_(part.left)


class Stretching(Sound):
    """Merges what no module had computed."""

    def merge(self, module: nn.Module) -> nn.Module:
        for part in shifts(module):
            part.frozen.mul_(1.1)
        return make_plain(module)


class Dropping(Sound):
    """Leaves what was learnt behind."""

    def merge(self, module: nn.Module) -> nn.Module:
        for part in shifts(module):
            nn.init.zeros_(part.left)
        return make_plain(module)


class Wandering(Sound):
    @torch.no_grad()
    def after(self, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        for part in shifts(module):
            part.frozen.add_(0.1)


class Remembering(Sound):
    """Keeps what changes in an attribute that no checkpoint holds."""

    @torch.no_grad()
    def after(self, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        for part in shifts(module):
            part.updates += 1
            part.left.mul_(1.0 / part.updates)


def check(spec: Sound) -> None:
    check_adapter(spec, lambda: Mlp(5, 3, hidden=(8,)).build(0).module, X, lambda module, x: module(x))


def test_a_sound_adapter_passes() -> None:
    check(Sound())


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (Careless, "randomness comes from named streams.*Careless"),
        (Counting, "the same seed gives the same adapter"),
        (Idle, "an adapter trains something"),
        (ByColumns, r"trained parameters are contiguous; ByColumns trains .*right"),
        (ByColumnsOncePrimed, "trained parameters are contiguous"),
        (Thawing, "priming leaves what requires gradients as it was"),
        (Littering, "priming leaves no gradients"),
        (Jumping, "the adapted model starts as the model"),
        (Stretching, "merging keeps what is computed; Stretching at the start"),
        (Dropping, "merging keeps what is computed; Dropping after 8 updates"),
        (Wandering, "what requires no gradient is not changed by the optimizer"),
        (Remembering, "going on from a saved state equals never having stopped"),
    ],
)
def test_a_broken_one_is_told_by_its_rule(broken: type[Sound], rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check(broken())
