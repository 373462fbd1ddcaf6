"""The adapter seam: a module made trainable in fewer parameters."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Adapter(Protocol):
    """Puts a small trainable part on a model and takes it off again."""

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with the adapter on it; only the adapter's parameters require gradients."""
        ...

    def merge(self, module: nn.Module) -> nn.Module:
        """Return a plain module of the original class that computes the same."""
        ...
