"""Answers without an advantage may be left out of an update: loss and gradient stay what they were, whatever is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from outlay.models import Transformer
from outlay.objectives import Dapo, DrGrpo, Grpo, LitePpo, Ppo, Reinforce
from outlay.objectives.base import Objective, Thins
from outlay.sources.base import IGNORED, Batch
from outlay.train.update import cut

MODEL = Transformer(hidden=16, layers=1, heads=2, context=16).build(2).module.double().eval()


def batch(rewards: list[float]) -> Batch:
    """Groups of three answers of unlike lengths."""
    count = len(rewards)
    draw = torch.Generator().manual_seed(7)
    ids = torch.randint(4, 90, (count, 9), generator=draw)
    lengths = torch.tensor([2 + i % 4 for i in range(count)])
    mask = (torch.arange(9) < (3 + lengths)[:, None]).long()
    labels = torch.where((torch.arange(9) >= 3) & mask.bool(), ids, IGNORED)
    behaviour = torch.where(labels != IGNORED, -4.5 + 0.3 * torch.rand(labels.shape, generator=draw), torch.zeros(labels.shape))
    return {
        "input_ids": ids, "attention_mask": mask, "labels": labels, "behaviour": behaviour.double(), "group": torch.arange(count) // 3,
        "reward": torch.tensor(rewards).double(), "judged": torch.tensor([i != 4 for i in range(count)]), "ended": torch.ones(count).bool(),
        "limit": torch.full((count,), 6), "temperature": torch.ones(count).double(),
    }  # fmt: skip


def taught(objective: Objective, pieces: list[Batch]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    weights = [objective.weight(piece) for piece in pieces]
    loss = sum(objective(MODEL, piece, {})[0] * (w / sum(weights)) for piece, w in zip(pieces, weights, strict=True))
    assert isinstance(loss, torch.Tensor)
    return loss.detach(), list(torch.autograd.grad(loss, list(MODEL.parameters())))


@pytest.mark.parametrize("objective", [Grpo(kl=0.0), DrGrpo(), Dapo(), LitePpo(), Reinforce()], ids=lambda one: type(one).__name__)
def test_loss_and_gradient_stay(objective: Any) -> None:
    prepared = objective.prepare(MODEL, batch([1, 0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0]), {})
    thinned = objective.thin(prepared)
    silent = int((prepared["advantage"] == 0).all(1).sum())
    assert silent > 0 and len(thinned["reward"]) == 15 - silent
    whole, gradient = taught(objective, [prepared])
    for pieces in ([thinned], cut(thinned, 2)):
        loss, other = taught(objective, pieces)
        torch.testing.assert_close(loss, whole, atol=1e-12, rtol=1e-9)
        for mine, theirs in zip(other, gradient, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-9)


def test_a_batch_that_teaches_nothing_keeps_a_row() -> None:
    objective = DrGrpo()
    prepared = objective.prepare(MODEL, batch([1.0] * 6), {})
    thinned = objective.thin(prepared)
    assert len(thinned["reward"]) == 1
    loss, gradient = taught(objective, [thinned])
    assert float(loss) == 0 and all(bool((part == 0).all()) for part in gradient)


def test_where_other_terms_teach_every_answer_stays() -> None:
    held = Grpo(kl=0.1).bind(lambda: MODEL)
    prepared = held.prepare(MODEL, batch([1.0] * 6), {})
    assert len(held.thin(prepared)["reward"]) == 6
    assert isinstance(held, Thins)
    critic = Ppo().estimator()
    assert critic.thin(prepared) is prepared
