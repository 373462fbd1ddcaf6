"""Per-layer updates: any optimizer takes each parameter's step during the backward pass, so that no two gradients are held at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from outlay.catalog import Paper
from outlay.optim.adamw import AdamW
from outlay.optim.base import OptimizerSpec, Spares
from outlay.optim.sharded import unsharded


@dataclass(frozen=True)
class PerLayer:
    """Another optimizer's steps, each taken when the parameter's gradient is complete; the gradient is freed at once.

    Gradients then take the bytes of the largest tensor instead of those of all. In exchange nothing sees the whole gradient: no clipping of its
    norm (``clip`` cuts each tensor's), no measuring of it, batches in one piece, one process, no scaled half precision. A tensor whose gradient
    is not finite keeps its weights; the others have moved by then. Weights are those that the optimizer alone would give.

    Args:
        optimizer: whose steps are taken. One whose parameters share quantities (Prodigy, D-Adaptation, schedule-free) is refused, and one that
            takes no gradients.
        clip: norm that each tensor's gradient is cut to, > 0.
    """

    title: ClassVar[str] = "Per-layer updates"
    paper: ClassVar[Paper | None] = Paper("2403.03507", "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", 2024)
    whole_batch: ClassVar[bool] = True

    optimizer: OptimizerSpec = field(default_factory=AdamW)
    clip: float = math.inf

    def __post_init__(self) -> None:
        if not self.clip > 0:
            raise ValueError(f"clip must be > 0, found {self.clip}")
        if isinstance(self.optimizer, Spares):
            raise ValueError(f"optimizer must step by whole gradients, and {type(self.optimizer).__name__} does not")
        if getattr(self.optimizer, "coupled", False):
            raise ValueError(f"optimizer must treat parameters on their own, and those of {type(self.optimizer).__name__} share quantities")

    @property
    def knobs(self) -> dict[str, float]:
        """The optimizer's."""
        return self.optimizer.knobs

    @property
    def forward_passes(self) -> int:
        """A forward and backward pass as usual."""
        return 0

    def build(self, parameters: Sequence[tuple[str, nn.Parameter]], seed: int = 0) -> torch.optim.Optimizer:
        """Return the optimizer over the parameters, which then have hooks.

        Raises:
            InputError: for parameters that are sharded.
        """
        parameters = unsharded(parameters, "PerLayer", "their gradients stand only when the backward pass is over")
        return _PerLayer(self.optimizer.build(parameters, seed), self.clip)

    def state_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """The optimizer's."""
        return self.optimizer.state_bytes(shapes, element_size)

    def gradient_bytes(self, shapes: Mapping[str, Sequence[int]], element_size: int = 4) -> int:
        """The largest tensor's."""
        return max((math.prod(shape) for shape in shapes.values()), default=0) * element_size


class _PerLayer(torch.optim.Optimizer):
    """Stands before the optimizer whose steps it takes: its groups and its state are that optimizer's."""

    def __init__(self, inner: torch.optim.Optimizer, clip: float) -> None:
        self._inner, self._clip, self._armed, self._squares = inner, clip, False, 0.0
        self.defaults = inner.defaults
        # a hook that holds this object would keep it alive with the parameters
        self._hooks = [p.register_post_accumulate_grad_hook(self._taker()) for group in inner.param_groups for p in group["params"]]

    def _taker(self) -> Callable[[torch.Tensor], None]:
        import weakref

        mine = weakref.ref(self)

        def take(parameter: torch.Tensor) -> None:
            optimizer = mine()
            if optimizer is not None and optimizer._armed:
                optimizer._take(parameter)

        return take

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self._inner.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self._inner.state

    @property
    def tables(self) -> Any:
        """What matrices of one shape share."""
        return getattr(self._inner, "tables", {})

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Let backward passes take steps."""
        self._armed, self._squares = True, 0.0
        try:
            yield
        finally:
            self._armed = False

    def gradient_norm(self) -> float:
        """Return the norm over all gradients since it was armed last."""
        return math.sqrt(self._squares) if math.isfinite(self._squares) else self._squares

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take the step of every parameter that still has a gradient: none after a pass that was armed."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._take(parameter)

    @torch.no_grad()
    def _take(self, parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None
        norm = float(gradient.norm(dtype=torch.promote_types(gradient.dtype, torch.float32)))
        self._squares += norm * norm
        if math.isfinite(norm):
            if norm > self._clip:
                gradient.mul_(self._clip / norm)
            everything = self._inner.param_groups
            mine = next(group for group in everything if any(p is parameter for p in group["params"]))
            try:
                self._inner.param_groups = [{**mine, "params": [parameter]}]
                self._inner.step()
            finally:
                self._inner.param_groups = everything
        parameter.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop gradients."""
        self._inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's."""
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the optimizer's."""
        self._inner.load_state_dict(state_dict)
