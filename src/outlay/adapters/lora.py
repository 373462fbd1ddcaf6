"""LoRA: a low-rank update beside frozen weights, through peft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from outlay.adapters.base import check_bare
from outlay.catalog import Paper
from outlay.errors import InputError, MissingExtra, nearest
from outlay.models.base import seeded


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation: W' = W + (alpha / rank) B A with A of shape (rank, in), B of shape (out, rank), B = 0 at the start.

    Args:
        rank: rank of the update, > 0.
        alpha: scale of the update, > 0.
        dropout: probability of dropping an input of A, in [0, 1).
        targets: names of the linear layers to adapt; empty for all of them but the output layer.
        last_blocks: adapt only this many of the last transformer blocks, > 0; None for all. What lies below them then needs no backward pass.
    """

    title: ClassVar[str] = "LoRA"
    paper: ClassVar[Paper | None] = Paper("2106.09685", "LoRA: Low-Rank Adaptation of Large Language Models", 2021)

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    last_blocks: int | None = None

    def __post_init__(self) -> None:
        if self.rank <= 0 or self.alpha <= 0:
            raise ValueError(f"rank and alpha must be > 0, found {self.rank} and {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), found {self.dropout}")
        if self.last_blocks is not None and self.last_blocks <= 0:
            raise ValueError(f"last_blocks must be > 0, found {self.last_blocks}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with peft's LoRA layers, A drawn from the stream (seed, "lora").

        Raises:
            MissingExtra: without peft.
            InputError: when no module is named as ``targets`` say, when one of them shares its weight with another, whose merged weight
                would be updated too, or when there is an adapter on already.
        """
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError:
            raise MissingExtra("peft", "hf") from None
        check_bare(module)
        _check_targets(module, self.targets)
        # peft adds to language models what generation needs; it finds linear layers by itself in models of transformers alone
        task = "CAUSAL_LM" if hasattr(module, "prepare_inputs_for_generation") else None
        whole = self.last_blocks is None and hasattr(module, "get_output_embeddings")
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, layers_to_transform=self._blocks(module), task_type=task,
            target_modules=list(self.targets) or ("all-linear" if whole else _inner_linear_names(module)),
        )  # fmt: skip
        try:
            with seeded(seed, "lora"):
                adapted: nn.Module = get_peft_model(module, config)
        except ValueError as error:
            raise InputError(f"LoRA cannot be attached: {error}") from error
        return adapted

    def _blocks(self, module: nn.Module) -> list[int] | None:
        if self.last_blocks is None:
            return None
        count = getattr(getattr(module, "config", None), "num_hidden_layers", 0)
        if self.last_blocks > count:
            raise InputError(f"LoRA cannot be attached: last_blocks is {self.last_blocks} and the model has {count} transformer blocks")
        return list(range(count - self.last_blocks, count))

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the original model with the update added to its weights."""
        merged: nn.Module = module.merge_and_unload()  # type: ignore[operator]
        return merged


def _check_targets(module: nn.Module, targets: tuple[str, ...]) -> None:
    parts = dict(module.named_modules())
    known = sorted({name.rsplit(".", 1)[-1] for name, part in parts.items() if isinstance(part, nn.Linear)})
    for target in targets:
        named = [name for name in parts if name == target or name.endswith(f".{target}")]
        if not named:
            raise InputError(f"LoRA cannot be attached: the model has no module named {target}{nearest(target, known)}")
        for name in named:
            weight = parts[name]._parameters.get("weight")
            shared = [
                other for other, part in parts.items() if other != name and weight is not None and part._parameters.get("weight") is weight
            ]
            if shared:
                raise InputError(
                    f"LoRA cannot be attached: {name} shares its weight with {shared[0]}; leave it out of targets, or untie them"
                )


def _inner_linear_names(module: nn.Module) -> list[str]:
    """Return the last part of the names of all linear layers but the output layer's; peft takes block numbers only beside such a list."""
    output = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None  # type: ignore[operator]
    return sorted({name.rsplit(".", 1)[-1] for name, part in module.named_modules() if isinstance(part, nn.Linear) and part is not output})
