"""Handing over: how a server comes to the weights that are trained."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from outlay.errors import InputError
from outlay.models.quiet import no_progress_bar
from outlay.rollout.serving import Server, ServerError

#: elements whose bits are summed at a time
_CHUNK = 1 << 20
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Handing(Protocol):
    """A way to hand weights over."""

    def __call__(self, model: nn.Module, mark: str) -> str:
        """Give the server the model's weights, which ``mark`` tells from others; return the name to ask for completions."""
        ...


def weights_mark(model: nn.Module) -> str:
    """Return 16 hexadecimal digits that change with any bit of the weights: a sum of their bits, each element times an odd number of its own,
    worked out where they lie."""
    total = 0
    for place, tensor in enumerate(model.state_dict().values()):
        bits = tensor.detach().contiguous().view(-1)
        bits = bits.to(torch.uint8) if bits.dtype == torch.bool else bits.view(_INTEGERS[bits.element_size()])
        for start in range(0, len(bits), _CHUNK):
            chunk = bits[start : start + _CHUNK].to(torch.int64)
            factors = torch.arange(start, start + len(chunk), device=chunk.device, dtype=torch.int64) * 2 + 1
            total += int((chunk * factors).sum()) * (2 * place + 1)
    return f"{total % 2**64:016x}"


class ByFolder:
    """Write all weights into the folder from which the server was started, and have it read them again.

    Args:
        server: started with ``VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER``.
        folder: that folder, as this process sees it.
        name: of the served model.
    """

    def __init__(self, server: Server, folder: Path, name: str) -> None:
        self._server, self._folder, self._name = server, folder, name

    def __call__(self, model: nn.Module, mark: str) -> str:
        aside = self._folder / f".outlay-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        with no_progress_bar():
            model.save_pretrained(aside)  # type: ignore[operator]
        written = sorted(aside.iterdir())
        for old in self._folder.glob("*.safetensors*"):  # another number of shards would be read together with these
            if not (aside / old.name).exists():
                old.unlink()
        for file in written:
            os.replace(file, self._folder / file.name)
        aside.rmdir()
        try:
            self._server.ask("/collective_rpc", {"method": "reload_weights"}, _nothing)
            self._server.ask("/reset_prefix_cache", {}, _nothing)  # it was computed with the weights before
        except ServerError as error:
            raise ServerError(f"the server cannot read weights again; start it with VLLM_SERVER_DEV_MODE=1 ({error})") from error
        return self._name


class ByAdapter:
    """Write the adapter into a folder of its own, and have the server load it under a name of its own.

    A new name needs no cache to be reset: the server keeps what it computed by adapter.

    Args:
        server: started with ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora --max-lora-rank RANK``.
        folder: where adapters are written, seen by both under the same path.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._loaded: str | None = None

    def __call__(self, model: nn.Module, mark: str) -> str:
        name = f"outlay-{mark}"
        path = self._folder.absolute() / name
        with no_progress_bar():
            # without this it asks a hub whether the embeddings were resized
            model.save_pretrained(path, save_embedding_layers=False)  # type: ignore[operator]
        # a run that was killed may have loaded it before: the same name means the same weights
        if name not in self._server.ask("/v1/models", None, model_names):
            try:
                self._server.ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}, _nothing, plain=True)
            except ServerError as error:
                hint = "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora"
                raise ServerError(f"the server cannot load adapters; {hint} ({error})") from error
        if self._loaded is not None and self._loaded != name:
            self._server.ask("/v1/unload_lora_adapter", {"lora_name": self._loaded}, _nothing, plain=True)
            shutil.rmtree(self._folder.absolute() / self._loaded, ignore_errors=True)
        self._loaded = name
        return name


def check_handing(model: nn.Module, way: str, folder: Path) -> None:
    """Raise ``InputError`` where the weights of this model cannot be handed over so."""
    adapted = hasattr(model, "peft_config")
    if not callable(getattr(model, "save_pretrained", None)):
        raise InputError(f"rollout/vllm needs a model of transformers, found {type(model).__name__}")
    if adapted != (way == "lora"):
        found = "has adapters" if adapted else "has no adapters"
        raise InputError(f"the model {found}: hand its weights over by {'lora' if adapted else 'folder'}, found {way}")
    if not folder.is_dir():
        raise InputError(f"weights are handed over in {folder}, which is no folder")


def model_names(answer: Any) -> list[str]:
    """Return the names of the models that a server lists."""
    return [str(card["id"]) for card in answer["data"]]


def _nothing(answer: Any) -> None:
    """What is answered does not matter."""
