"""A cache of keys and values with a place for each row, and the passes of any causal language model of transformers over it.

Imports transformers: the local engine imports this module when it opens a model.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from outlay.errors import InputError
from outlay.rollout.passes import Prefix


class PlacesLayer(CacheLayerMixin):
    """One layer: keys and values (places, heads, capacity, head width), of which the first ``active`` places and ``longest`` positions are read.

    Each active row writes its next position, ``lengths[row]``.
    """

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self.active = self.longest = 0
        self.rows = self.lengths = torch.zeros(0, dtype=torch.long, device=keys.device)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: the room was taken beforehand."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one position a row, (rows, heads, 1, head width), and return what the rows may look at."""
        self.keys[self.rows, :, self.lengths] = key_states[:, :, 0]
        self.values[self.rows, :, self.lengths] = value_states[:, :, 0]
        return self.keys[: self.active, :, : self.longest], self.values[: self.active, :, : self.longest]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many positions are looked at, and where they begin."""
        return self.longest, 0

    def get_seq_length(self) -> int:
        """Return the positions written before this pass; rows have their own, which come as position_ids and mask."""
        return max(0, self.longest - 1)

    def get_max_length(self) -> int:
        """Return the capacity."""
        return int(self.keys.shape[2])


class ModelPasses:
    """Passes through ``model.forward``: right for any causal model that takes position_ids, a mask of four dimensions and a transformers cache.

    Args:
        model: in evaluation mode.
        places: rows side by side at most.
        capacity: positions of a row at most.
    """

    mixed = False

    def __init__(self, model: nn.Module, places: int, capacity: int) -> None:
        self._model, self._places, self._capacity = model, places, capacity
        self._device = next(model.parameters()).device
        self._layers: list[PlacesLayer] = []
        self._lengths = torch.zeros(places, dtype=torch.long, device=self._device)
        self._rows = torch.arange(places, device=self._device)
        self._columns = torch.arange(capacity, device=self._device)
        self._last_alone = {"logits_to_keep": 1} if "logits_to_keep" in forward_arguments(model) else {}

    def read(self, prompts: Sequence[Sequence[int]]) -> list[Prefix]:
        """Read prompts of one length side by side."""
        ids = torch.tensor(prompts, dtype=torch.long, device=self._device)
        positions = torch.arange(ids.shape[1], device=self._device).expand_as(ids)
        cache = DynamicCache()
        found = self._model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, **self._last_alone)
        if not cache.layers or any(layer.get_seq_length() != ids.shape[1] for layer in cache.layers):
            raise InputError(
                f"{type(self._model).__name__} does not keep all keys and values in a transformers cache; rollout/local needs that"
            )
        return [
            Prefix(
                ids.shape[1],
                found.logits[row, -1],
                tuple(layer.keys[row] for layer in cache.layers),
                tuple(layer.values[row] for layer in cache.layers),
            )
            for row in range(len(prompts))
        ]

    def seat(self, first: int, prefixes: Sequence[Prefix]) -> None:
        """Let rows that have read these prefixes sit in the places from ``first`` on."""
        if not self._layers:
            self._layers = [
                PlacesLayer(self._room(key), self._room(value)) for key, value in zip(prefixes[0].keys, prefixes[0].values, strict=True)
            ]
        for place, prefix in enumerate(prefixes, start=first):
            for layer, key, value in zip(self._layers, prefix.keys, prefix.values, strict=True):
                layer.keys[place, :, : prefix.length] = key
                layer.values[place, :, : prefix.length] = value
            self._lengths[place] = prefix.length

    def close_up(self, to: Sequence[int], source: Sequence[int], left: int) -> None:
        """Let the rows in the places ``source`` sit in the places ``to``; the first ``left`` places remain."""
        goal, origin = (torch.tensor(places, dtype=torch.long, device=self._device) for places in (to, source))
        for layer in self._layers:
            layer.keys[goal] = layer.keys[origin]
            layer.values[goal] = layer.values[origin]
        self._lengths[goal] = self._lengths[origin]

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one token (n,) each in the places 0 to n - 1 and return the logits after it, (n, vocabulary)."""
        active = len(tokens)
        lengths = self._lengths[:active]
        longest = int(lengths.max()) + 1
        for layer in self._layers:
            layer.active, layer.longest, layer.rows, layer.lengths = active, longest, self._rows[:active], lengths
        hidden = self._columns[:longest] > lengths[:, None]
        dtype = self._layers[0].dtype
        # added to the scores: every attention implementation that takes four dimensions understands it
        mask = torch.zeros(hidden.shape, dtype=dtype, device=self._device).masked_fill_(hidden, torch.finfo(dtype).min)
        found = self._model(
            input_ids=tokens[:, None], position_ids=lengths[:, None], attention_mask=mask[:, None, None], use_cache=True,
            past_key_values=Cache(layers=list(self._layers)),
        )  # fmt: skip
        self._lengths[:active] += 1
        return found.logits[:, -1]

    def _room(self, one: torch.Tensor) -> torch.Tensor:
        # zeros: what is masked is still multiplied by 0, and 0 times anything must stay 0
        return one.new_zeros(self._places, one.shape[0], self._capacity, one.shape[2])


def forward_arguments(model: nn.Module) -> frozenset[str]:
    """Return the names of the arguments of a model's forward, looking through an adapter's wrapper."""
    inner = model.get_base_model() if callable(getattr(model, "get_base_model", None)) else model  # type: ignore[operator]
    return frozenset(inspect.signature(inner.forward).parameters)


def check_generates(model: nn.Module) -> None:
    """Raise ``InputError`` for a model that ``ModelPasses`` would not compute right."""
    config = getattr(model, "config", None)
    name = type(model).__name__
    missing = {"input_ids", "position_ids", "attention_mask", "past_key_values"} - forward_arguments(model)
    if config is None or missing:
        raise InputError(
            f"rollout/local needs a causal language model of transformers that takes input_ids, position_ids, attention_mask and past_key_values; "
            f"{name} takes no {', '.join(sorted(missing)) or 'configuration'}"
        )
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    refused = {
        "is an encoder with a decoder": getattr(config, "is_encoder_decoder", False),
        "reads positions from the mask (alibi)": getattr(text, "alibi", False),
        "has a prompt learnt beside its weights": any(
            getattr(each, "is_prompt_learning", False) for each in getattr(model, "peft_config", {}).values()
        ),
        "has layers without keys and values": not set(getattr(text, "layer_types", None) or ()) <= {"full_attention", "sliding_attention"},
        "runs flash attention, which takes no mask of four dimensions; load it with attn_implementation='sdpa'": "flash"
        in str(getattr(text, "_attn_implementation", "")),
    }
    for reason, found in refused.items():
        if found:
            raise InputError(f"rollout/local cannot generate with this {name}: it {reason}")


def position_bytes(model: nn.Module) -> int:
    """Return about how many bytes the keys and values of one position take."""
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * width * next(model.parameters()).element_size())


def longest_sequence(model: nn.Module) -> int | None:
    """Return how many positions a model can be given here: its own limit, and its attention window where it has one."""
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limits = [getattr(text, "max_position_embeddings", None)]
    kinds = getattr(text, "layer_types", None)
    if getattr(text, "use_sliding_window", True) and (kinds is None or "sliding_attention" in kinds):
        # beyond its window a layer would see what it should not
        limits.append(getattr(text, "sliding_window", None))
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None
