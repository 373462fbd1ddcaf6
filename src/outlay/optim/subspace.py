"""Subspace optimizers: full state for a part of every matrix's gradient, a cheap rule for the rest. One algorithm with exchangeable parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.inner_rules.adam import Adam
from outlay.inner_rules.base import InnerRule, Rotates
from outlay.layout import Layout, Shape, layout_bytes
from outlay.optim.subspace_step import SubspaceOptimizer
from outlay.projectors.base import Cycles, Place, Projector, Shares, Turns
from outlay.projectors.svd import Svd
from outlay.residuals.base import Residual
from outlay.residuals.drop import Drop

#: parts of the names of matrices that get the full rule: embeddings and output layers, whose gradients are sparse or of high rank
FULL = ("embed", "wte", "wpe", "shared.", "lm_head", "score", "classifier", "head.")


@dataclass(frozen=True)
class Subspace:
    """Any projector, inner rule and residual rule together. For each matrix W with gradient G, every step t = 1, 2, ...:

        every ``period`` steps, the first included: choose the subspace anew by G
        R = down(G);  N, factor = inner rule(R);  W <- W - lr update(G, R, N, factor)      (update: the residual rule)

    and decoupled decay W <- W - lr weight_decay W. Everything else (vectors, tensors of more than two dimensions, embeddings and output layers)
    follows ``full``. GaLore is svd + adam + drop, Fira svd + adam + norm_scaled, APOLLO gaussian + adam + channel_scaled, FRUGAL columns + adam +
    sign. Knobs: ``lr`` and ``weight_decay``; vectors do not decay.

    Under FSDP2 a matrix's gradient is gathered, one at a time, and every process keeps the matrix's whole state.

    Args:
        projector: which part of the gradient has state.
        inner: rule of that part.
        residual: what becomes of the rest, and the scale of the update.
        period: steps between choices of the subspace, >= 1; None to choose once.
        moments: what becomes of the inner rule's state at a new choice: ``keep`` it as it is, ``reset`` it with its count of steps, or ``rotate`` it
            into the new coordinates (for projectors that know the rotation and rules that can).
        decay: whether weights decay ``before`` the update or ``after`` it.
        rounding: how weights below single precision take the step: to ``nearest``, or ``stochastic``, right on average.
        full: rule of everything that is not projected.
        names: parts of names of matrices that are not projected.
    """

    title: ClassVar[str] = "Subspace optimizer"
    paper: ClassVar[Paper | None] = Paper(
        "2411.07837", "FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable Training", 2024
    )
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-3, "weight_decay": 0.0}

    projector: Projector = field(default_factory=Svd)
    inner: InnerRule = field(default_factory=Adam)
    residual: Residual = field(default_factory=Drop)
    period: int | None = 200
    moments: Literal["keep", "reset", "rotate"] = "keep"
    decay: Literal["before", "after"] = "before"
    rounding: Literal["nearest", "stochastic"] = "nearest"
    full: InnerRule = field(default_factory=Adam)
    names: tuple[str, ...] = FULL

    def __post_init__(self) -> None:
        if self.period is not None and self.period < 1:
            raise ValueError(f"period must be >= 1, found {self.period}")
        if self.moments == "rotate" and not (isinstance(self.projector, Turns) and isinstance(self.inner, Rotates)):
            which = f"{type(self.projector).__name__} with {type(self.inner).__name__}"
            raise ValueError(f"moments cannot be rotated by {which}; keep or reset them")
        if self.moments != "reset" and isinstance(self.projector, Cycles):
            raise ValueError(
                f"{type(self.projector).__name__} gives state to other tensors each round, so moments must be reset, found {self.moments}"
            )

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return the optimizer over the parameters; random choices come from streams of ``seed`` and the parameters' names.

        The seed is part of the state: an optimizer that loads one goes on with the choices of the run that saved it.
        """
        return SubspaceOptimizer(self, parameters, dict(self.knobs), seed)

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """Return the bytes of everything kept: a count of steps and the parts' slots a tensor, and shared tables; in the round with the most."""
        sizes = {name: tuple(shape) for name, shape in shapes.items()}
        chosen = [name for name, shape in sizes.items() if self.projects(name, shape)]
        turned = {name: self.turned(sizes[name]) for name in chosen}
        rounds = self.projector.rounds(len(chosen)) if isinstance(self.projector, Cycles) and self.period else 1
        projected = 0
        for number in range(rounds):
            places = {name: Place(name, index, len(chosen), number) for index, name in enumerate(chosen)}
            projected = max(projected, sum(layout_bytes(self._matrix_layout(turned[name], places[name]), element_size) for name in chosen))
        tables = self.projector.tables(sorted(set(turned.values()))) if isinstance(self.projector, Shares) else {}
        whole = sum(layout_bytes(self.full.layout(shape), element_size) for name, shape in sizes.items() if name not in turned)
        return projected + whole + layout_bytes(tables, element_size) + 4 * len(sizes)

    def _matrix_layout(self, shape: Shape, place: Place) -> Layout:
        parts = (
            ("projector", self.projector.layout(shape, place)),
            ("inner", self.inner.layout(self.projector.small(shape, place))),
            ("residual", self.residual.layout(shape)),
        )
        return {f"{part}.{name}": slot for part, layout in parts for name, slot in layout.items()}

    def projects(self, name: str, shape: Shape) -> bool:
        """Return whether a parameter of this name and shape is projected."""
        return len(shape) == 2 and not any(part in f"{name}." for part in self.names)

    def turned(self, shape: Shape) -> Shape:
        """Return a matrix's shape as the projector sees it."""
        return (shape[1], shape[0]) if self.projector.turns(shape) else shape


class Composed:
    """A published composition under its own name: a class below gives ``composed``, its fields are the paper's."""

    knobs: ClassVar[dict[str, float]] = {"lr": 1e-2, "weight_decay": 0.0}

    def composed(self) -> Subspace:
        """Return the parts that the method is made of."""
        raise NotImplementedError

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return the optimizer over the parameters; random choices come from streams of ``seed`` and the parameters' names."""
        return SubspaceOptimizer(self.composed(), parameters, dict(self.knobs), seed)

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """Return the bytes of everything kept: see ``Subspace.state_bytes``."""
        return self.composed().state_bytes(shapes, element_size)
