"""GaLore: the subspace it moves in, what it keeps, its limits, and its readable twin."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from outlay.errors import InputError
from outlay.inner_rules import Adam
from outlay.optim import AdamW, GaLore, PerLayer, Sgd, Subspace, ZerothOrder, follow
from outlay.optim.galore import reference_galore
from outlay.testing import check_optimizer


def gradients(count: int, shape: tuple[int, ...] = (6, 4), seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(count)]


def drive(spec: GaLore | Subspace, start: torch.Tensor, steps: list[torch.Tensor], name: str = "w", **knobs: float) -> torch.Tensor:
    w = nn.Parameter(start.clone())
    optimizer = spec.build([(name, w)])
    for knob, value in knobs.items():
        follow(optimizer, knob, value)
    for gradient in steps:
        w.grad = gradient.clone()
        optimizer.step()
    return w.detach()


START = gradients(1, seed=9)[0]


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_hundred_steps_agree_with_the_readable_twin(decay: float) -> None:
    spec, steps = GaLore(rank=2, period=7), gradients(100)
    expected = reference_galore(START, steps, spec, lr=0.01, decay=decay)
    assert torch.allclose(drive(spec, START, steps, lr=0.01, weight_decay=decay), expected, rtol=1e-9)
    # a wide matrix is its transpose
    wide = drive(spec, START.T, [g.T for g in steps], lr=0.01, weight_decay=decay)
    assert torch.allclose(wide.T, expected, rtol=1e-9)


def test_between_refreshes_the_change_has_the_rank_of_the_subspace() -> None:
    spec = GaLore(rank=2, period=5)
    assert torch.linalg.matrix_rank(drive(spec, START, gradients(5), lr=0.1) - START) == 2
    assert torch.linalg.matrix_rank(drive(spec, START, gradients(6), lr=0.1) - START) > 2


def test_embeddings_and_vectors_follow_adam() -> None:
    spec = Subspace(inner=Adam(eps=1e-8), full=Adam(eps=1e-8))
    for name, shape in (("model.embed_tokens.weight", (6, 4)), ("norm.weight", (4,)), ("conv.weight", (2, 3, 2))):
        start, steps = gradients(1, shape, seed=3)[0], gradients(10, shape)
        w = nn.Parameter(start.clone())
        peer = torch.optim.AdamW([w], lr=0.01, weight_decay=0.0)
        for gradient in steps:
            w.grad = gradient.clone()
            peer.step()
        assert torch.allclose(drive(spec, start, steps, name=name, lr=0.01), w.detach(), rtol=1e-9)


def test_contract() -> None:
    check_optimizer(GaLore(rank=2, period=2))
    check_optimizer(Subspace())


@pytest.mark.parametrize("spec", [AdamW(), GaLore(rank=2), ZerothOrder(), PerLayer(Sgd())], ids=lambda spec: type(spec).__name__)
def test_parameters_come_by_name_and_from_any_iterable(spec: Any) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with pytest.raises(InputError, match=r"by name, found Parameter; pass list\(model.named_parameters\(\)\)"):
        spec.build(module.parameters())
    held = [p for group in spec.build(module.named_parameters()).param_groups for p in group["params"]]
    assert len(held) == 4, "a generator is read once"
