"""Grafting: the few weights of a fine-tuned model that carry what it has learnt, on the model it came from."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from outlay.adapters.tensors import chosen_tensors, project, settle
from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.rng import torch_generator


@dataclass(frozen=True)
class Grafting:
    """theta = theta_pre + gamma (theta_tuned - theta_pre), entry by entry, with b = 1 for the ``share`` of all entries that moved furthest and

        gamma = b + (1 - 2 b) sigmoid(S - bias),  S = stretch x, x ~ U(0, 1) / stretch at the start, x trained

    so that gamma is nearly b at first and training can flip any entry; no weight is trained. In evaluation, and in what ``merge`` leaves,
    gamma is rounded to 0 or 1: with no training at all that is the mask of the entries that moved furthest.

    At the start the sigmoid's slope is below 1.3e-4 and an entry flips when S has gone 9 to 10 up, which is why the paper takes steps of
    plain gradient descent on S with a learning rate of 1e7, in many epochs over one batch. A step on x moves S by stretch times as much, and
    the gradient of x is stretch times that of S: gradient descent on x with the rate 1e7 / stretch^2 is the paper's, and optimizers of the
    kind of Adam move S by about stretch times their rate a step (their eps, of 1e-8, is also out of the way of so small gradients). With the
    default that is a rate of 10, or of 1e-4 to 1e-3. Nothing holds what is taken to ``share``: training may take
    more. Which x is kept is for the evaluation to say.

    For every entry that may be grafted it keeps what it was tuned to, the mask and x: 9 bytes beside the weight, in float32.

    Args:
        tuned: the fine-tuned model: a folder with safetensors, or a file of safetensors or of ``torch.save``, with the names of the model.
        share: of all entries that may be grafted, those in the mask at the start, in (0, 1]; the paper's lie between 1e-7 and 1e-5.
        bias: what S must exceed to flip an entry, > 0.
        stretch: S over x, > 0; 1 is the paper's.
        targets: names of the tensors that may be grafted, whole or their last parts; empty for all but embeddings and the output layer.
    """

    title: ClassVar[str] = "Grafting"
    paper: ClassVar[Paper | None] = Paper("2302.06600", "Task-Specific Skill Localization in Fine-tuned Language Models", 2023)

    tuned: Path
    share: float = 1e-5
    bias: float = 10.0
    stretch: float = 1000.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], found {self.share}")
        if self.bias <= 0 or self.stretch <= 0:
            raise ValueError(f"bias and stretch must be > 0, found {self.bias} and {self.stretch}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with the graft on, x drawn from the streams (seed, "adapter/grafting/" name).

        Raises:
            InputError: when the file cannot be read or lacks a tensor, or one has another shape.
        """
        chosen = chosen_tensors(module, self.targets)
        if not self.targets:
            fixed = _ends(module)
            chosen = {name: p for name, p in chosen.items() if id(p) not in fixed}
        tuned = _tuned(Path(self.tuned), chosen)
        tuned = {name: tuned[name].to(p.device, p.dtype) for name, p in chosen.items()}
        masks = top_movement({name: tuned[name] - p.detach() for name, p in chosen.items()}, self.share)

        def make(name: str, tensor: torch.Tensor) -> Graft:
            start = torch.rand(tensor.shape, generator=torch_generator(seed, f"adapter/grafting/{name}"))
            return Graft(tuned[name], masks[name], start.to(tensor.device) / self.stretch, self.bias, self.stretch)

        return project(module.requires_grad_(False), make, set(chosen))

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with every entry from one of both models."""
        return settle(module.eval()).requires_grad_(True)


class Graft(nn.Module):
    """w -> w + gamma (tuned - w).

    Args:
        tuned: what fine-tuning made of w, of its shape.
        mask: b, booleans of its shape.
        start: x, of its shape.
        bias: as in ``Grafting``.
        stretch: as in ``Grafting``.
    """

    tuned: torch.Tensor
    mask: torch.Tensor

    def __init__(self, tuned: torch.Tensor, mask: torch.Tensor, start: torch.Tensor, bias: float, stretch: float) -> None:
        super().__init__()
        self.bias, self.stretch = bias, stretch
        self.register_buffer("tuned", tuned)
        self.register_buffer("mask", mask)
        self.x = nn.Parameter(start)

    def gamma(self) -> torch.Tensor:
        """Return gamma, of w's shape."""
        flip = torch.sigmoid(self.stretch * self.x - self.bias)
        return torch.where(self.mask, 1 - flip, flip)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return w + gamma (tuned - w); in evaluation w or tuned, bit by bit."""
        if not self.training:
            return torch.where(self.gamma().round().bool(), self.tuned, tensor)
        return tensor + (self.gamma() * (self.tuned - tensor)).to(tensor.dtype)


def top_movement(moves: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Return masks of the round(share x entries) entries of all tensors together that moved furthest, at least one; ties go to the first."""
    distances = torch.cat([move.abs().float().flatten() for move in moves.values()])
    count = max(1, round(share * len(distances)))
    flat = torch.zeros(len(distances), dtype=torch.bool, device=distances.device)
    flat[distances.argsort(descending=True, stable=True)[:count]] = True
    parts = flat.split([move.numel() for move in moves.values()])
    return {name: part.view(move.shape) for (name, move), part in zip(moves.items(), parts, strict=True)}


def _ends(module: nn.Module) -> set[int]:
    """Return the identities of the parameters of embeddings and of the output layer."""
    getter: Callable[[], nn.Module | None] | None = getattr(module, "get_output_embeddings", None)
    output = getter() if getter is not None else None
    parts = [part for part in module.modules() if isinstance(part, nn.Embedding) or part is output]
    return {id(p) for part in parts for p in part.parameters()}


def _tuned(path: Path, chosen: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Return the tensors of the fine-tuned model, checked."""
    tensors = _read(path)
    lacking = [name for name in chosen if name not in tensors]
    if lacking:
        raise InputError(f"{path} lacks {len(lacking)} of the model's tensors, such as {lacking[0]}; is it tuned from this model?")
    for name, p in chosen.items():
        if tensors[name].shape != p.shape:
            raise InputError(f"{name} is {tuple(tensors[name].shape)} in {path} and {tuple(p.shape)} in the model")
    return tensors


def _read(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise InputError(f"{path} is neither a file nor a folder with safetensors")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            loaded = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
        except (SafetensorError, pickle.UnpicklingError, OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{file} cannot be read as weights: {error}") from error
        tensors.update(loaded)
    return tensors
