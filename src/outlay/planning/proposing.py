"""Proposing: which optimizers fit under a memory ceiling, and what they are expected to lose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from torch import nn

from outlay.optim.adafactor import Adafactor
from outlay.optim.adamw import AdamW
from outlay.optim.adamw_8bit import AdamW8bit
from outlay.optim.apollo import Apollo, ApolloMini
from outlay.optim.base import OptimizerSpec
from outlay.optim.fira import Fira
from outlay.optim.frugal import Frugal
from outlay.optim.galore import GaLore
from outlay.optim.per_layer import PerLayer
from outlay.optim.sgd import Sgd
from outlay.optim.signsgd import SignSgd
from outlay.planning.cost import Cost
from outlay.planning.memory import HEAD_ROOM, floor, memory
from outlay.planning.text import size

#: measured differences of final losses, written by ``python bench/memory.py --expect``
MEASURED = "expected.json"


@dataclass(frozen=True)
class Expected:
    """What an optimizer lost against AdamW where it was measured, in nats a token; below 0 it gained.

    Args:
        mean: of the paired differences.
        low: end of the interval of 95 %.
        high: the other.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """An optimizer that could be taken.

    Args:
        recipe: how a recipe says it.
        state: bytes of its state.
        total: bytes that the run holds with one example at a time; without activations where the model was never run.
        expected: what it is expected to lose; None where it was not measured.
        fits: whether the total fits under the ceiling.
    """

    recipe: str
    state: int
    total: int
    expected: Expected | None
    fits: bool

    def text(self) -> str:
        """Return the choice as a line for people."""
        known = self.expected
        lost = f"is expected to lose {known.mean:+.2f} [{known.low:+.2f}, {known.high:+.2f}] nats" if known else "was never measured"
        return f"optimizer: {self.recipe} needs {size(self.total)} ({size(self.state)} of state) and {lost}"


@cache
def measured() -> dict[str, Any]:
    """Return what was measured: ``setting``, a text, and ``losses``, by the optimizer's name in recipes."""
    found: dict[str, Any] = json.loads(files("outlay.planning").joinpath(MEASURED).read_text(encoding="utf-8"))
    return found


def candidates(module: nn.Module) -> Iterator[tuple[str, str, OptimizerSpec]]:
    """Yield (name, recipe text, spec) of what is proposed: ranks and densities are a quarter, as they were measured."""
    widths = [min(p.shape) for p in module.parameters() if p.requires_grad and p.dim() == 2]
    rank = max(1, sorted(widths)[len(widths) // 2] // 4) if widths else 1
    plain: list[tuple[str, OptimizerSpec]] = [
        ("adamw", AdamW()), ("adamw_8bit", AdamW8bit()), ("adafactor", Adafactor()), ("fira", Fira(rank)), ("apollo", Apollo(rank)),
        ("frugal", Frugal()), ("galore", GaLore(rank)), ("apollo_mini", ApolloMini()), ("signsgd", SignSgd()), ("sgd", Sgd()),
    ]  # fmt: skip
    for name, spec in plain:
        fields = f"{{{name}: {{rank: {rank}}}}}" if name in ("fira", "apollo", "galore") else name
        yield name, fields, spec
        # gradients of one tensor at a time, the same weights in the end
        yield name, f"{{per_layer: {{optimizer: {fields}}}}}", PerLayer(spec)


def choices(module: nn.Module, cost: Cost | None, ceiling: float, batch: int = 1) -> list[Choice]:
    """Return every candidate, those that fit first, and among them those that are expected to lose the least; among equals the plainer one.

    Args:
        module: what is trained.
        cost: of an example; None where the model was never run: then activations are left out.
        ceiling: bytes that may be held; a tenth is kept free where activations are known.
        batch: examples an update. Where a batch may be cut, the total is that of one example at a time.
    """
    losses = measured()["losses"]
    found: dict[str, Choice] = {}
    for name, text, spec in candidates(module):
        if name in found and found[name].fits:
            continue  # the plainer of the two fits
        whole = isinstance(spec, PerLayer)
        parts = floor(module, spec) if cost is None else memory(module, spec, cost, batch if whole else 1, again=batch > 1 and not whole)
        expected = Expected(**losses[name]) if name in losses else None
        room = ceiling if cost is None else ceiling * (1 - HEAD_ROOM)
        one = Choice(text, parts.optimizer, parts.total, expected, parts.total <= room)
        if name not in found or one.fits:
            found[name] = one
    return sorted(found.values(), key=lambda one: (not one.fits, one.expected.mean if one.expected else float("inf")))


def proposal(module: nn.Module, cost: Cost | None, ceiling: float, batch: int = 1) -> str:
    """Return the choice that is expected to lose the least of those that fit, as text; empty when none fits."""
    best = next((choice for choice in choices(module, cost, ceiling, batch) if choice.fits), None)
    return f"{best.text()} ({measured()['setting']})" if best is not None else ""
