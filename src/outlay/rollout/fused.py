"""Fused passes: Llama and its kin computed from their weights, several times as fast on short rows as through the model's own forward.

The same arithmetic as ``ModelPasses`` in another order: queries, keys and values come from one product, and so do gate and up; norms' weights
and the scale of the scores are multiplied into these copies; each head's coordinates are paired up so that the rotation by position is one
complex product; ``columns`` and ``shared`` say where keys and values lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from outlay.rollout.columns import Columns, Room, pairs
from outlay.rollout.passes import Prefix
from outlay.rollout.shared import SharedPrompts

_KNOWN = {
    f"transformers.models.{name}.modeling_{name}.{family}ForCausalLM"
    for name, family in {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}.items()
}
#: rotations that depend on the position alone, not on how long the sequence is
_ROTATIONS = {"default", "linear", "llama3", "yarn"}
#: above this many weights copies of them would weigh more than the time they save
_LARGEST = 200_000_000


def fuses(model: nn.Module) -> bool:
    """Say whether ``FusedPasses`` computes what this model's forward does: a known architecture, unwrapped, in single or double precision."""
    if f"{type(model).__module__}.{type(model).__qualname__}" not in _KNOWN:
        return False
    whole: Any = model
    config, trunk = whole.config, whole.model
    parts = [model, whole.lm_head, *trunk.modules()]
    weights = [*trunk.parameters(), whole.lm_head.weight]
    linear = [
        getattr(block, name)
        for layer in trunk.layers
        for block, names in ((layer.self_attn, "qkvo"), (layer.mlp, ("gate", "up", "down")))
        for name in (f"{part}_proj" for part in names)
    ]
    biased = [
        each for layer in trunk.layers for each in (layer.self_attn.o_proj, layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj)
    ]
    return (
        not any("forward" in vars(part) or part._forward_hooks or part._forward_pre_hooks for part in parts)
        and all(type(each) is nn.Linear for each in [*linear, whole.lm_head])
        and type(trunk.embed_tokens) is nn.Embedding
        and all(getattr(each, "bias", None) is None for each in [*biased, whole.lm_head])
        and {(weight.dtype, weight.device) for weight in weights}
        in ({(kind, weights[0].device)} for kind in (torch.float32, torch.float64))
        and not torch.is_autocast_enabled(weights[0].device.type)
        and config.hidden_act == "silu"
        and trunk.rotary_emb.rope_type in _ROTATIONS
        and sum(weight.numel() for layer in trunk.layers for weight in layer.parameters()) <= _LARGEST
    )


@dataclass(frozen=True)
class _Layer:
    """One layer's weights, transposed: inputs first.

    ``head_scale`` (heads + key heads, head width) is there where queries and keys are normalised head by head, with its ``head_epsilon``.
    """

    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    head_scale: torch.Tensor | None
    head_epsilon: torch.Tensor
    out: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class _Desk:
    """Room for what the layers work out, one after the other, for so many rows.

    ``query`` and ``key`` are (rows, heads, width / 2) complex, ``value`` is (rows, key heads, width), all within ``qkv``; ``turning`` is queries
    and keys as real numbers; ``turned`` takes the rotated queries, complex; ``gate`` and ``up`` lie within ``gate_up``.
    """

    def __init__(self, room: Room, name: str, rows: int, heads: int, key_heads: int, width: int, inner: int, like: torch.Tensor) -> None:
        self.qkv = room.take(f"{name} qkv", (rows, (heads + 2 * key_heads) * width), like)
        each = self.qkv.view(rows, -1, width)
        self.turning, self.value = each[:, :-key_heads], each[:, -key_heads:]
        both = pairs(self.turning)
        self.query, self.key = both[:, :heads], both[:, heads:]
        self.queries = room.take(f"{name} queries", (rows, heads, width), like)
        self.turned = pairs(self.queries)
        self.gate_up = room.take(f"{name} gate_up", (rows, 2 * inner), like)
        self.gate, self.up = self.gate_up.chunk(2, dim=1)


class FusedPasses:
    """Passes from copies of the weights taken now.

    Args:
        model: one that ``fuses``.
        room: where buffers come from.
        places: rows side by side at most.
        longest: tokens of a prompt at most.
        limit: new tokens of a row at most.
        groups: different prompts at once at most.
        share: keep prompts once, not in every row.
    """

    mixed = True

    def __init__(self, model: nn.Module, room: Room, places: int, longest: int, limit: int, groups: int, share: bool) -> None:
        self._room = room
        whole: Any = model
        config, trunk = whole.config, whole.model
        attention = trunk.layers[0].self_attn
        self._width = attention.head_dim
        self._heads = attention.q_proj.out_features // self._width
        self._key_heads = attention.k_proj.out_features // self._width
        self._embedding = trunk.embed_tokens.weight
        self._device, self._dtype = self._embedding.device, self._embedding.dtype
        self._hidden, self._inner = self._embedding.shape[1], trunk.layers[0].mlp.gate_proj.out_features
        # norms divide by sqrt(sum + size epsilon); the weights behind them are multiplied by sqrt(size)
        self._epsilon = self._number(self._hidden * config.rms_norm_eps)
        self._layers = [self._fuse(layer) for layer in trunk.layers]
        self._final = trunk.norm.weight * self._hidden**0.5
        self._head = whole.lm_head.weight.t()
        positions = torch.arange(longest + limit, device=self._device)[None]
        cosine, sine = trunk.rotary_emb(self._embedding[:1], positions)
        half = self._width // 2
        self._rotations = torch.complex(cosine[0, :, :half], sine[0, :, :half])[:, None]

        self._columns = Columns(room, len(self._layers), places, self._key_heads, 0 if share else longest, limit, self._empty(0))
        self._shared = SharedPrompts(room, len(self._layers), groups, self._key_heads, longest, self._empty(0)) if share else None
        self._positions = torch.zeros(places, dtype=torch.long, device=self._device)
        self._writing = self._desk("writing", places)

    # ---- weights ---------------------------------------------------------------------------------------------------------------------

    def _fuse(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        root = self._hidden**0.5
        before = layer.input_layernorm.weight * root
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        scales = (attention.scaling, 1.0, 1.0)
        per_head = hasattr(attention, "q_norm")
        if per_head:
            scales = (1.0, 1.0, 1.0)
        paired = (self._paired, self._paired, lambda rows: rows)
        weights = [pair(each.weight) * scale for each, scale, pair in zip(projections, scales, paired, strict=True)]
        biases = [pair(each.bias) * scale for each, scale, pair in zip(projections, scales, paired, strict=True) if each.bias is not None]
        head_scale, head_epsilon = None, self._epsilon
        if per_head:
            query, key = (self._paired(norm.weight) * self._width**0.5 for norm in (attention.q_norm, attention.k_norm))
            head_scale = torch.cat([(query * attention.scaling).expand(self._heads, -1), key.expand(self._key_heads, -1)])
            head_epsilon = self._number(self._width * attention.q_norm.variance_epsilon)
        return _Layer(
            qkv=(torch.cat(weights) * before).t().contiguous(),
            qkv_bias=torch.cat(biases) if biases else None,
            head_scale=head_scale,
            head_epsilon=head_epsilon,
            out=attention.o_proj.weight.t().contiguous(),
            gate_up=(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * (layer.post_attention_layernorm.weight * root))
            .t()
            .contiguous(),
            down=mlp.down_proj.weight.t().contiguous(),
        )

    def _paired(self, rows: torch.Tensor) -> torch.Tensor:
        """Put coordinate i of every head beside coordinate i + width / 2, with which it is rotated."""
        heads = rows.reshape(-1, 2, self._width // 2, *rows.shape[1:])
        return heads.transpose(1, 2).reshape(rows.shape)

    def _number(self, value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=self._dtype, device=self._device)

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(*shape, self._width, dtype=self._dtype, device=self._device)

    # ---- what both passes compute ----------------------------------------------------------------------------------------------------

    def _qkv(self, layer: _Layer, hidden: torch.Tensor, desk: _Desk) -> None:
        """Leave queries and keys, not yet rotated, and values on the desk."""
        normed = _scaled(hidden, self._epsilon)
        if layer.qkv_bias is None:
            torch.mm(normed, layer.qkv, out=desk.qkv)
        else:
            torch.addmm(layer.qkv_bias, normed, layer.qkv, out=desk.qkv)
        if layer.head_scale is not None:
            desk.turning.copy_(_scaled(desk.turning, layer.head_epsilon) * layer.head_scale)

    def _after(self, layer: _Layer, hidden: torch.Tensor, attended: torch.Tensor, desk: _Desk) -> None:
        """Turn the layer's input into its output, given what attention found."""
        hidden.addmm_(attended, layer.out)
        torch.mm(_scaled(hidden, self._epsilon), layer.gate_up, out=desk.gate_up)
        hidden.addmm_(functional.silu(desk.gate, inplace=True).mul_(desk.up), layer.down)

    def _desk(self, name: str, rows: int) -> _Desk:
        return _Desk(self._room, name, rows, self._heads, self._key_heads, self._width, self._inner, self._empty(0))

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.mm(_scaled(hidden, self._epsilon).mul_(self._final), self._head)

    # ---- prompts ---------------------------------------------------------------------------------------------------------------------

    def read(self, prompts: Sequence[Sequence[int]]) -> list[Prefix]:
        """Read prompts side by side, one behind the other in one long row without padding; only attention sees where they begin."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        lengths = [len(prompts[i]) for i in order]
        ends = torch.tensor(lengths).cumsum(0)
        tokens = torch.tensor([token for i in order for token in prompts[i]], device=self._device)
        rotations = self._rotations[torch.cat([torch.arange(length) for length in lengths]).to(self._device)]
        # prompts of one length: where they begin, how many, how long
        runs: list[tuple[int, int, int]] = []
        for length, same in groupby(lengths):
            runs.append((runs[-1][0] + runs[-1][1] * runs[-1][2] if runs else 0, len(list(same)), length))
        keys, values = (self._empty(len(self._layers), self._key_heads, len(tokens)) for _ in range(2))
        hidden, desk = self._embedding[tokens], self._desk("prompts", len(tokens))
        for index, layer in enumerate(self._layers):
            self._qkv(layer, hidden, desk)
            torch.mul(desk.key.transpose(0, 1), rotations.transpose(0, 1), out=pairs(keys[index]))
            values[index].copy_(desk.value.transpose(0, 1))
            torch.mul(desk.query, rotations, out=desk.turned)
            attended = torch.empty_like(desk.queries)
            for first, count, length in runs:
                span = slice(first, first + count * length)
                one, other = (kept[index, :, span].unflatten(1, (count, length)).transpose(0, 1) for kept in (keys, values))
                found = functional.scaled_dot_product_attention(
                    desk.queries[span].unflatten(0, (count, length)).transpose(1, 2), one, other,
                    is_causal=True, scale=1.0, enable_gqa=self._heads != self._key_heads,
                )  # fmt: skip
                attended[span].unflatten(0, (count, length)).copy_(found.transpose(1, 2))
            if index == len(self._layers) - 1:  # of the last layer, only what the next token hangs on
                last = (ends - 1).to(self._device)
                hidden, attended, desk = hidden[last], attended[last], self._desk("prompts", len(prompts))
            self._after(layer, hidden, attended.flatten(1), desk)
        logits = self._logits(hidden)
        read: dict[int, Prefix] = {}
        for place, (i, length, end) in enumerate(zip(order, lengths, ends.tolist(), strict=True)):
            read[i] = Prefix(length, logits[place], (keys,), (values,), end - length)
        return [read[i] for i in range(len(prompts))]

    # ---- places ----------------------------------------------------------------------------------------------------------------------

    def seat(self, first: int, prefixes: Sequence[Prefix]) -> None:
        """Let rows that have read these prefixes sit in the places from ``first`` on."""
        self._columns.seat(first, prefixes)
        if self._shared is not None:
            self._shared.seat(first, prefixes)
        lengths = torch.tensor([prefix.length for prefix in prefixes], device=self._device)
        self._positions[first : first + len(prefixes)] = lengths

    def close_up(self, to: Sequence[int], source: Sequence[int], left: int) -> None:
        """Let the rows in the places ``source`` sit in the places ``to``; ``left`` rows remain."""
        self._columns.close_up(to, source, left)
        if self._shared is not None:
            self._shared.close_up(to, source, left)
        if to:
            goal, origin = (torch.tensor(places, device=self._device) for places in (to, source))
            self._positions[goal] = self._positions[origin]

    # ---- one token a row -------------------------------------------------------------------------------------------------------------

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one token (n,) each in the places 0 to n - 1 and return the logits after it, (n, vocabulary)."""
        count = len(tokens)
        self._columns.step()
        rotations = self._rotations.index_select(0, self._positions[:count])
        hidden = self._embedding.index_select(0, tokens)
        if len(self._writing.qkv) != count:
            self._writing = self._desk("writing", count)
        desk = self._writing
        queries = desk.queries.view(count * self._key_heads, -1, self._width)
        for index, layer in enumerate(self._layers):
            self._qkv(layer, hidden, desk)
            key, value = self._columns.newest(index)
            torch.mul(desk.query, rotations, out=desk.turned)
            torch.mul(desk.key, rotations, out=key)
            value.copy_(desk.value)
            self._after(layer, hidden, self._columns.attend(index, queries, self._shared).view(count, -1), desk)
        self._positions[:count] += 1
        return self._logits(hidden)


def _scaled(rows: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
    """Return rows / sqrt(sum of squares + epsilon), over the last dimension."""
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows * torch.addcmul(epsilon, norm, norm).rsqrt_()
