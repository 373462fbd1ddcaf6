"""Any torch module, from a function named by its import path."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.models.base import Loaded, seeded


@dataclass(frozen=True)
class PythonModel:
    """Any torch module, built by calling a function of yours.

    Args:
        target: import path ``package.module:function`` of what returns an ``nn.Module``.
        arguments: keyword arguments of the call.
    """

    title: ClassVar[str] = "Module from Python"
    paper: ClassVar[Paper | None] = None

    target: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.target.count(":") != 1:
            raise ValueError(f"target reads package.module:function, found {self.target!r}")

    def build(self, seed: int) -> Loaded:
        """Return the module that the function makes, its random weights drawn from the stream (seed, "model").

        Raises:
            InputError: when the path cannot be imported, the arguments do not fit, or what comes back is not a module.
        """
        module, _, function = self.target.partition(":")
        try:
            maker = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise InputError(f"cannot import {self.target!r}: {error}; check the spelling and that it is on the Python path") from error
        try:
            inspect.signature(maker).bind(**self.arguments)
        except TypeError as error:
            raise InputError(f"{self.target!r} cannot be called with the arguments {self.arguments}: {error}") from error
        with seeded(seed, "model"):
            made = maker(**self.arguments)
        if not isinstance(made, nn.Module):
            raise InputError(f"{self.target!r} returned {type(made).__name__}; it must return a torch.nn.Module")
        return Loaded(made)
