"""A small language for tests of structured layers: text in which two tokens say which may follow, and a model of two blocks."""

from __future__ import annotations

import torch
from torch import nn

from outlay.adapters.base import Adapter, Follows, Moment
from outlay.models import Transformer
from outlay.rng import torch_generator

TOKENS = 8
LLAMA = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (4, 8), generator=torch.Generator().manual_seed(0))
# the usual 0.02 is meant for widths of hundreds: here weights would begin too small to learn anything for long
LARGER = Transformer(hidden=32, layers=2, heads=4, feed_forward=64, context=32, options={"initializer_range": 0.1})
INNER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def logits_of(module: nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return out


def trained(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def text(rows: int, length: int, counter: int) -> torch.Tensor:
    """Rows of text, each token drawn by the two before it; its entropy is 1.11 nats a token."""
    table = torch.softmax(2 * torch.randn(TOKENS, TOKENS, TOKENS, generator=torch_generator(0, "language")), dim=-1)
    draw = torch_generator(0, "text", counter)
    ids = torch.randint(TOKENS, (rows, 2), generator=draw)
    for _ in range(length - 2):
        ids = torch.cat([ids, torch.multinomial(table[ids[:, -2], ids[:, -1]], 1, generator=draw)], 1)
    return ids


def loss_of(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits_of(module, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def loss_after(spec: Adapter, steps: int, lr: float, seed: int) -> float:
    """Train the larger model from scratch with Adam and return its loss on other text."""
    module = spec.attach(LARGER.build(seed).module, seed).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.0)
    for step in range(1, steps + 1):
        moment = Moment(step, (step - 1) / steps, seed)
        if isinstance(spec, Follows):
            spec.before(module, moment)
        loss_of(module, text(16, 32, step)).backward()
        optimizer.step()
        if isinstance(spec, Follows):
            spec.after(module, optimizer, moment)
        optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        return float(loss_of(module.eval(), text(64, 32, 0)))
