"""SaRA: which weights move, its penalty, its refinement, and a peer that takes the same steps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from outlay.adapters import Moment, Perp, Sara
from outlay.errors import InputError
from outlay.models import Mlp, Transformer
from outlay.testing import check_adapter

SPEC = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (4, 8), generator=torch.Generator().manual_seed(0))


def layer(rows: int = 70, columns: int = 66) -> Any:
    draw = torch.Generator().manual_seed(1)
    linear = nn.Linear(columns, rows, bias=False, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(rows, columns, generator=draw, dtype=torch.float64))
    return nn.Sequential(linear)


def loss_of(module: nn.Module, step: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(100 + step)
    x = torch.randn(32, 66, generator=draw, dtype=torch.float64)
    return (module(x)[:, :20] - x[:, 20:40]).square().mean()


def drive(spec: Sara, module: Any, steps: int, decay: float = 0.01) -> list[int]:
    """Return how many entries were trained at each step."""
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.02, weight_decay=decay)
    counts = []
    for step in range(1, steps + 1):
        moment = Moment(step, (step - 1) / steps)
        spec.before(module, moment)
        (loss_of(module, step) + spec.penalty(module)).backward()
        optimizer.step()
        spec.after(module, optimizer, moment)
        optimizer.zero_grad()
        counts.append(int(module[0].trained.sum()))
    return counts


@pytest.mark.parametrize("penalty", [0.0, 0.05])
def test_the_steps_are_those_of_the_published_optimizer(penalty: float) -> None:
    """pytorch_optimizer's SaRA over the dense weight: decay, moments kept at the refinement, and the penalty on what is left of the mask."""
    peers = pytest.importorskip("pytorch_optimizer")
    spec, steps = Sara(threshold=0.4, penalty_weight=penalty, refine_at=0.5), 12
    mine: Any = spec.attach(layer(), 0)
    peer: Any = layer()
    drive(spec, mine, steps)
    optimizer = peers.SaRA(
        peer.parameters(), lr=0.02, threshold=0.4, progressive_iter=steps // 2, lambda_rank=penalty, weight_decay=0.01, foreach=False
    )
    for step in range(1, steps + 1):
        loss_of(peer, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    merged: Any = spec.merge(mine)
    moved = (peer[0].weight - layer()[0].weight).abs().max()
    assert moved > 0.1 and torch.allclose(merged[0].weight, peer[0].weight, rtol=0, atol=1e-10)


def test_large_entries_stay_bit_by_bit_and_the_mask_only_shrinks() -> None:
    spec, start = Sara(threshold=0.4, penalty_weight=0.01), layer()[0].weight.detach()
    small = start.abs() < 0.4
    module: Any = spec.attach(layer(), 0)
    trained = [p for p in module.parameters() if p.requires_grad]
    assert [tuple(p.shape) for p in trained] == [(1, int(small.sum()))]
    counts = drive(spec, module, 10)
    assert counts[:5] == [int(small.sum())] * 5 and counts[5] < counts[4] and counts[5:] == [counts[5]] * 5
    merged: Any = spec.merge(module)
    weight = merged[0].weight.detach()
    assert torch.equal(weight[~small], start[~small]) and (weight != start)[small].float().mean() > 0.99


def test_entries_that_left_the_mask_stay_where_they_were() -> None:
    spec = Sara(threshold=0.4, penalty_weight=0.0, refine_at=0.5)
    half: Any = spec.attach(layer(), 0)
    whole: Any = spec.attach(layer(), 0)
    drive(spec, half, 12, decay=0.5)
    left = ~half[0].trained
    drive(Sara(threshold=0.4, penalty_weight=0.0, refine_at=None), whole, 6, decay=0.5)
    before = whole[0].weight.flatten()[whole[0].index]
    after = half[0].weight.flatten()[half[0].index]
    assert 0 < int(left.sum()) < len(left)
    assert torch.equal(left, before.abs() >= 0.4) and torch.equal(after[left], before[left])
    assert (after != before)[~left].all()


def test_the_gradient_of_the_penalty_is_that_of_the_nuclear_norm() -> None:
    spec = Sara(threshold=0.7, penalty_weight=3.0)
    module: Any = spec.attach(layer(), 0)
    spec.before(module, Moment(1, 0.0))
    spec.penalty(module).backward()
    weight = layer()[0].weight.detach()
    mask = weight.abs() < 0.7
    u, s, vh = torch.linalg.svd(weight * mask, full_matrices=False)
    assert s.min() > 1e-3  # of full rank, so that there is one gradient
    assert torch.allclose(module[0].values.grad[0], 3.0 * (u @ vh)[mask])
    assert float(spec.penalty(module).detach()) == pytest.approx(3.0 * float(s.sum()))


def test_one_large_enough_layer_is_penalised_a_step() -> None:
    spec = Sara(threshold=0.1, penalty_weight=1.0, side=20, entries=10)

    def build() -> nn.Module:
        return spec.attach(Mlp(30, 5, (40, 50, 60, 20)).build(0).module, 0)

    module, seen = build(), set()
    for step in range(1, 60):
        spec.before(module, Moment(step, 0.0, seed=5))
        chosen = [name for name, part in module.named_modules() if getattr(part, "penalised", False)]
        assert len(chosen) == 1
        seen.add(chosen[0])
        module.zero_grad()
        spec.penalty(module).backward()
        touched = [name.rsplit(".", 1)[0] for name, p in module.named_parameters() if p.grad is not None and p.grad.any()]
        assert touched == chosen
    assert seen == {"1", "4", "7"}  # 20 outputs and 5 outputs are too few
    small = Sara(threshold=0.1, penalty_weight=1.0)
    module = small.attach(Mlp(30, 5, (40,)).build(0).module, 0)
    small.before(module, Moment(1, 0.0))
    assert float(small.penalty(module).detach()) == 0.0


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.images, dtype=torch.float32)[order] / 16, torch.tensor(data.target)[order]


def fit(module: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int, lr: float) -> None:
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    draw = torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        rows = torch.randint(len(x), (128,), generator=draw)
        functional.cross_entropy(module(x[rows]), y[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()


def accuracy(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float((module.eval()(x[1200:]).argmax(1) == y[1200:]).float().mean())


def test_it_forgets_less_than_a_low_rank_update_of_its_size() -> None:
    """Digits, then mirrored digits, 1172 trained weights each, as many updates at one rate; held-out accuracy. In return it learns less of the new."""
    (x, y), base = digits(), Mlp(64, 10, (128, 128)).build(0).module
    fit(base, x[:1200], y[:1200], 400, 3e-3)
    mirrored = x.flip(2)
    known, start = accuracy(base, x, y), accuracy(base, mirrored, y)
    # nothing pruned, no biases: LoRA
    low_rank = Perp(0.0, rank=2, alpha=4.0, biases=False, norms=False).attach(copy.deepcopy(base), 0)
    count = sum(p.numel() for p in low_rank.parameters() if p.requires_grad)
    sizes = torch.cat([p.detach().flatten().abs() for p in base.parameters() if p.dim() == 2]).sort().values
    small = Sara(threshold=float(sizes[count]), penalty_weight=0.0, refine_at=None).attach(copy.deepcopy(base), 0)
    assert sum(p.numel() for p in small.parameters() if p.requires_grad) == count == 2 * (64 + 4 * 128 + 10)
    for module in (low_rank, small):
        fit(module, mirrored[:300], y[:300], 200, 1e-2)
    assert known > 0.95
    assert accuracy(small, x, y) > accuracy(low_rank, x, y) + 0.15 and accuracy(small, x, y) > known - 0.1
    assert accuracy(low_rank, mirrored, y) > accuracy(small, mirrored, y) > start + 0.1


def test_layers_without_small_weights_are_frozen_and_a_model_without_any_is_refused() -> None:
    module: Any = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    nn.init.constant_(module[0].weight, 0.5)
    adapted: Any = Sara(threshold=0.2).attach(module, 0)
    assert type(adapted[0]) is nn.Linear and [name for name, p in adapted.named_parameters() if p.requires_grad] == ["1.values"]
    nn.init.constant_(module[0].weight, 0.5)
    with pytest.raises(InputError, match=r"SaRA has nothing to train: the smallest weight is 0.5 and threshold 0.2"):
        Sara(threshold=0.2).attach(nn.Sequential(module[0]), 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshold": 0.0}, "threshold must be > 0, found 0"),
        ({"penalty_weight": -1.0}, "penalty_weight must be >= 0, found -1"),
        ({"refine_at": 1.0}, r"refine_at must lie in \(0, 1\), found 1"),
        ({"side": -1}, "side and entries must be >= 0, found -1 and 100"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sara(**fields)


def test_contract() -> None:
    def logits(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return out

    spec = Sara(threshold=0.02, penalty_weight=0.1, side=8, entries=10)
    check_adapter(spec, lambda: SPEC.build(0).module, IDS, logits)
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(2))
    check_adapter(spec, lambda: Mlp(12, 3, (16, 16)).build(0).module, x, lambda module, batch: module(batch))
