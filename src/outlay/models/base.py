"""The model seam: what is trained, built from nothing but its own fields and a seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from outlay.rng import derive


def save_plain(module: nn.Module, folder: Path) -> None:
    """Write a module that has no ``save_pretrained`` of its own: ``model.safetensors`` and ``model.json`` with the class and the shapes."""
    from safetensors.torch import save_model

    folder.mkdir(parents=True, exist_ok=True)
    save_model(module, str(folder / "model.safetensors"))
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    (folder / "model.json").write_text(
        json.dumps({"class": f"{type(module).__module__}.{type(module).__qualname__}", "shapes": shapes}, indent=1)
    )


@dataclass
class Loaded:
    """A model ready to be trained.

    Args:
        module: the module; its parameters with ``requires_grad`` are trained.
        tokenizer: transformers' tokenizer, or None for a model that reads no text.
        save: writes the module to a folder that the same library loads again.
    """

    module: nn.Module
    tokenizer: Any = None
    save: Callable[[nn.Module, Path], None] = save_plain


@runtime_checkable
class ModelSpec(Protocol):
    """Describes a model; building it twice from the same seed gives the same weights."""

    def build(self, seed: int) -> Loaded:
        """Return the model with weights that depend on ``seed`` alone (or on the files it is loaded from)."""
        ...


class seeded:
    """``with seeded(seed, name):`` runs a block under torch's global generator seeded from a named stream, and puts it back after.

    Modules draw their initial weights and dropout masks from the global generator; this is the one place where it is touched.
    """

    def __init__(self, seed: int, name: str, counter: int = 0) -> None:
        self._seed = derive(seed, name, counter)

    def __enter__(self) -> None:
        self._before = torch.get_rng_state()
        if torch.accelerator.is_available():
            torch.manual_seed(self._seed)
        else:  # the same numbers, without what torch does to seed accelerators that are not there: half a millisecond a step
            torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self._before)
