"""Rollouts of a bigram model, for tests of policy gradients: three questions, answers of unlike lengths, one that nobody could judge."""

from __future__ import annotations

from typing import Any

import torch
from small_texts import GROUPS, Bigram, bigram, log_prob, text
from torch import nn

from outlay.objectives.base import Objective
from outlay.sources.base import Batch

#: the policy that is trained, and one a little different that wrote the answers
POLICY, WRITER = bigram(0), Bigram(bigram(0).table.detach() + 0.3 * bigram(5).table.detach())
REWARDS = [1.0, 0.0, 0.2, 0.9, 0.5, 7.0, 0.5, 0.0]


def rollouts(writer: Bigram = WRITER, rewards: list[float] | None = None, temperature: float = 1.0) -> Batch:
    """Return the batch as a source hands it over; ``writer`` says how likely each token was."""
    batch = text(
        GROUPS,
        group=[3, 3, 5, 5, 5, 5, 9, 9],
        judged=[True] * 5 + [False] + [True] * 2,
        ended=[True] * 8,
        limit=[5] * 8,
        temperature=[temperature] * 8,
        greedy_reward=[0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0],
    )
    batch["reward"] = torch.tensor(REWARDS if rewards is None else rewards, dtype=torch.float64)
    batch["behaviour"] = torch.zeros(batch["labels"].shape, dtype=torch.float64)
    for row, (prompt, answer) in enumerate(GROUPS):
        warm = Bigram(writer.table.detach() / temperature)
        batch["behaviour"][row, len(prompt) : len(prompt) + len(answer)] = log_prob(warm, prompt, answer).detach()
    return batch


def gradient_of(objective: Objective, batch: Batch, model: nn.Module = POLICY) -> torch.Tensor:
    """Return the gradient with respect to the bigram table, after preparing the batch."""
    return torch.autograd.grad(loss_of(objective, batch, model), list(model.parameters()))[0]


def loss_of(objective: Any, batch: Batch, model: nn.Module = POLICY) -> torch.Tensor:
    """Return the loss on the batch, after preparing it."""
    loss: torch.Tensor = objective(model, objective.prepare(model, dict(batch), {}), {})[0]
    return loss
