"""What the tests of objectives over sequences share: small models whose probabilities are known, and batches of every shape."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from outlay.sources.base import IGNORED


class Bigram(nn.Module):
    """Logits of the next token out of a table, one row a token."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table.clone().double())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.table[input_ids])


def bigram(seed: int = 0, tokens: int = 7) -> Bigram:
    """Return a bigram model with random logits."""
    return Bigram(torch.randn(tokens, tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def text(rows: Sequence[tuple[Sequence[int], Sequence[int]]], **columns: Sequence[Any]) -> dict[str, torch.Tensor]:
    """Lay (prompt, answer) rows out as a batch, padded on the right with token 0."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for i, (prompt, answer) in enumerate(rows):
        start, end = len(prompt), len(prompt) + len(answer)
        ids[i, :end], mask[i, :end] = torch.tensor([*prompt, *answer]), 1
        labels[i, start:end] = ids[i, start:end]
    made = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return made | {name: torch.tensor(values) for name, values in columns.items()}


def log_prob(model: Bigram, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Return log pi(answer | prompt), one token at a time, (tokens,): the readable twin."""
    rows = model.table.log_softmax(-1)
    return torch.stack([rows[before, after] for before, after in zip([prompt[-1], *answer[:-1]], answer, strict=True)])


#: demonstrations of unlike lengths, one prompt of several tokens, one answer of a single token
DEMONSTRATIONS: list[tuple[list[int], list[int]]] = [([1], [2, 3, 4, 5]), ([2, 6], [1, 1]), ([5], [4]), ([3, 3, 2], [6, 1, 2])]

#: three groups: of two rows, of four with one that was not judged, and a tie
GROUPS: list[tuple[list[int], list[int]]] = [
    ([1], [2, 3, 4]), ([1], [5, 2]),
    ([2, 6], [1, 1, 3, 5]), ([2, 6], [4]), ([2, 6], [3, 2]), ([2, 6], [5, 5, 5]),
    ([4], [1, 2]), ([4], [2, 1, 3]),
]  # fmt: skip


def groups() -> dict[str, torch.Tensor]:
    """Return the three groups as a batch; the best of the second was not judged."""
    return text(
        GROUPS,
        group=[3, 3, 5, 5, 5, 5, 9, 9],
        reward=[1.0, 0.0, 0.2, 0.9, 0.5, 7.0, 0.5, 0.5],
        judged=[True, True, True, True, True, False, True, True],
    )


def gradient(loss: torch.Tensor, model: nn.Module) -> list[torch.Tensor]:
    """Return the loss's gradient with respect to the model's parameters."""
    return list(torch.autograd.grad(loss, list(model.parameters())))


def same_gradient(one: torch.Tensor, other: torch.Tensor, model: nn.Module, tolerance: float = 1e-10) -> bool:
    """Say whether two losses have the same gradient."""
    pairs = zip(gradient(one, model), gradient(other, model), strict=True)
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)
