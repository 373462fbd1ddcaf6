"""A causal language model from a transformers configuration, with fresh weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from outlay.catalog import Paper
from outlay.errors import InputError, MissingExtra, nearest
from outlay.models.base import Loaded, seeded
from outlay.models.saving import save_transformer
from outlay.models.tokenizers import open_tokenizer


@dataclass(frozen=True)
class Transformer:
    """A causal language model of any transformers architecture, with fresh weights.

    Args:
        architecture: transformers' model type, such as ``llama``, ``gpt2``, ``qwen3``.
        hidden: width of the residual stream, > 0, divisible by ``heads``.
        layers: number of blocks, > 0.
        heads: attention heads, > 0.
        feed_forward: inner width of the feed-forward part; None for the usual 8/3 hidden, rounded up to a multiple of 16.
        context: longest sequence in tokens, > 0.
        tokenizer: ``characters`` (printable ASCII, one token each), ``bytes`` (UTF-8 bytes), ``bpe-<size>`` (byte pairs learnt from the corpus
            ``code``), or the path or hub name of any tokenizer.
        tie_embeddings: whether the output layer shares the embedding's weights.
        options: further fields of the architecture's configuration, as transformers names them.
    """

    title: ClassVar[str] = "Transformer from a configuration"
    paper: ClassVar[Paper | None] = None

    architecture: str = "llama"
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int | None = None
    context: int = 128
    tokenizer: str = "characters"
    tie_embeddings: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads", "context"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be > 0, found {getattr(self, name)}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be divisible by heads, found {self.hidden} and {self.heads}")

    def build(self, seed: int) -> Loaded:
        """Return the model with weights drawn from the stream (seed, "model").

        Raises:
            MissingExtra: without transformers.
            InputError: for an architecture or an option that transformers does not know.
        """
        try:
            from transformers import CONFIG_MAPPING, AutoModelForCausalLM
        except ImportError:
            raise MissingExtra("transformers", "hf") from None
        if self.architecture not in CONFIG_MAPPING:
            raise InputError(
                f"transformers knows no architecture {self.architecture!r}{_short(nearest(self.architecture, CONFIG_MAPPING))}"
            )
        tokenizer = open_tokenizer(self.tokenizer)
        config = CONFIG_MAPPING[self.architecture]()
        settings = self._settings(len(tokenizer), tokenizer)
        for key, value in {**settings, **self.options}.items():
            if not hasattr(config, key) and key in self.options:
                raise InputError(f"the configuration of {self.architecture} has no field {key!r}{_short(nearest(key, vars(config)))}")
            setattr(config, key, value)
        with seeded(seed, "model"):
            module: nn.Module = AutoModelForCausalLM.from_config(config)
        return Loaded(module, tokenizer, save_transformer(tokenizer))

    def _settings(self, vocabulary: int, tokenizer: Any) -> dict[str, Any]:
        inner = self.feed_forward or -(-8 * self.hidden // 3 // 16) * 16
        return {
            "vocab_size": vocabulary, "hidden_size": self.hidden, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads, "head_dim": self.hidden // self.heads, "intermediate_size": inner,
            "n_inner": inner, "max_position_embeddings": self.context, "tie_word_embeddings": self.tie_embeddings,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        }  # fmt: skip


def _short(hint: str) -> str:
    return hint if "did you mean" in hint else ""
