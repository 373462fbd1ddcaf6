"""Dynamic sparse learning: the budget after every update, what is dropped and grown, and that it is worth the trouble."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from outlay.adapters import DynamicSparse, Moment
from outlay.errors import InputError
from outlay.models import Mlp, Transformer
from outlay.models.base import seeded
from outlay.testing import check_adapter

SPEC = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (4, 8), generator=torch.Generator().manual_seed(0))
X = torch.randn(20, 12, generator=torch.Generator().manual_seed(1))
Y = torch.arange(20) % 3


def small() -> nn.Module:
    return Mlp(12, 3, (16,)).build(0).module


def update(spec: DynamicSparse, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment, pieces: int = 1) -> None:
    spec.before(module, moment)
    for x, y in zip(X.chunk(pieces), Y.chunk(pieces), strict=True):
        (functional.cross_entropy(module(x.to(next(module.parameters()).dtype)), y) / pieces).backward()
    optimizer.step()
    spec.after(module, optimizer, moment)


@settings(max_examples=10, deadline=None)
@given(density=st.floats(0.01, 1.0), share=st.floats(0.0, 1.0), period=st.integers(1, 3))
def test_the_budget_holds_after_every_update(density: float, share: float, period: int) -> None:
    spec = DynamicSparse(density=density, share=share, period=period)
    module: Any = spec.attach(small(), 0)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    budget = [max(1, round(density * size)) for size in (16 * 12, 3 * 16)]
    for step in range(1, 7):
        before = [set(module[i].index.tolist()) for i in (1, 4)]
        update(spec, module, optimizer, Moment(step, (step - 1) / 6))
        optimizer.zero_grad()
        for layer, count, old in zip((module[1], module[4]), budget, before, strict=True):
            places = set(layer.index.tolist())
            assert len(places) == layer.index.numel() == layer.values.numel() == count
            assert (layer.weight != 0).sum() <= count
            # as many come as go; none comes back at once
            wanted = int(share * (1 + math.cos(math.pi * (step - 1) / 6)) / 2 * count) if step % period == 0 else 0
            assert len(places - old) == len(old - places) == min(wanted, layer.weight.numel() - count)


def test_the_smallest_weights_make_room_for_the_largest_gradients() -> None:
    spec = DynamicSparse(density=0.3, share=0.5, period=2)
    module: Any = spec.attach(small().double(), 0)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.0)
    update(spec, module, optimizer, Moment(1, 0.0))
    optimizer.zero_grad()
    layer = module[1]
    index, count = layer.index.clone(), layer.index.numel()
    # the dense gradient, from a plain model with the same weights
    plain: Any = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    for mine, theirs in ((plain[1], module[1]), (plain[3], module[4])):
        mine.weight.data.copy_(theirs.weight)
        mine.bias.data.copy_(theirs.bias)
    functional.cross_entropy(plain(X.double()), Y).backward()
    twin: Any = spec.attach(small().double(), 0)
    twin.load_state_dict(module.state_dict())
    twin_optimizer = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.0)
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    update(dataclasses.replace(spec, share=0.0), twin, twin_optimizer, Moment(2, 0.25))  # the same update with nothing replaced
    update(spec, module, optimizer, Moment(2, 0.25), pieces=2)
    n = int(0.5 * (1 + math.cos(math.pi / 4)) / 2 * count)
    stepped = twin[1].weight.detach().flatten()
    dropped = index[stepped[index].abs().argsort()[:n]]
    dense = plain[1].weight.grad.flatten().abs()
    dense[index] = 0
    grown = dense.argsort(descending=True)[:n]
    assert 0 < n < count
    kept = set(index.tolist()) - set(dropped.tolist())
    assert set(layer.index.tolist()) == kept | set(grown.tolist())
    after = layer.weight.detach().flatten()
    assert not after[dropped].any() and not after[grown].any()
    assert torch.allclose(after[list(kept)], stepped[list(kept)], atol=1e-12)
    state, same = optimizer.state[layer.values], twin_optimizer.state[twin[1].values]
    new = torch.isin(layer.index, grown)
    for name in ("exp_avg", "exp_avg_sq"):
        assert not state[name][0, new].any() and same[name][0, new].any()
        assert torch.allclose(state[name][0, ~new], same[name][0, ~new], atol=1e-15)


def test_at_the_end_the_places_stand_still() -> None:
    spec = DynamicSparse(density=0.3, share=1.0, period=1)
    module: Any = spec.attach(small(), 0)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    before = module[1].index.clone()
    update(spec, module, optimizer, Moment(1, 1.0))
    assert torch.equal(module[1].index, before)
    update(spec, module, optimizer, Moment(2, 0.5))
    assert not torch.equal(module[1].index, before)


def test_nothing_dense_is_kept_between_replacements() -> None:
    spec = DynamicSparse(density=0.3, period=3)
    module: Any = spec.attach(small(), 0)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for step in range(1, 7):
        spec.before(module, Moment(step, 0.0))
        functional.cross_entropy(module(X), Y).backward()
        assert (module[1].dense is not None) == (step % 3 == 0)
        optimizer.step()
        spec.after(module, optimizer, Moment(step, 0.0))
        assert module[1].dense is None


def test_at_density_one_it_is_dense_training() -> None:
    spec = DynamicSparse(density=1.0, period=1)
    module, plain = spec.attach(small(), 0), small()
    one = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1)
    other = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(1, 6):
        update(spec, module, one, Moment(step, 0.0))
        functional.cross_entropy(plain(X), Y).backward()
        other.step()
        one.zero_grad()
        other.zero_grad()
    merged: Any = spec.merge(module)
    assert type(merged[1]) is nn.Linear
    assert all(torch.equal(p, q) for p, q in zip(merged.parameters(), plain.parameters(), strict=True))


def accuracy(spec: DynamicSparse, seed: int, steps: int = 300) -> float:
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, held_out = order[:1200], order[1200:]
    module = spec.attach(Mlp(64, 10, (64, 64)).build(seed).module, seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(1, steps + 1):
        moment = Moment(step, (step - 1) / steps, seed)
        rows = train[torch.randint(len(train), (128,), generator=torch.Generator().manual_seed(1000 * seed + step))]
        spec.before(module, moment)
        functional.cross_entropy(module(x[rows]), y[rows]).backward()
        optimizer.step()
        spec.after(module, optimizer, moment)
        optimizer.zero_grad()
    with torch.no_grad():
        return float((module(x[held_out]).argmax(1) == y[held_out]).float().mean())


def test_moving_weights_beat_a_mask_that_stands_on_digits() -> None:
    """Handwritten digits, held-out accuracy with 5 % of the weights, three seeds, equal budgets: .78 against .37."""
    moving = [accuracy(DynamicSparse(density=0.05, share=0.3, period=20), seed) for seed in range(3)]
    standing = [accuracy(DynamicSparse(density=0.05, share=0.0, period=20), seed) for seed in range(3)]
    assert all(one > other for one, other in zip(moving, standing, strict=True))
    assert sum(moving) / 3 > sum(standing) / 3 + 0.25


USERS, ITEMS, SIZE = 200, 300, 16


class Factors(nn.Module):
    """Scores of items for users: products of factors."""

    def __init__(self, users: int = USERS, items: int = ITEMS, size: int = SIZE) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, size), nn.Embedding(items, size, padding_idx=0 if items < 10 else None)
        nn.init.normal_(self.users.weight, std=0.1)
        nn.init.normal_(self.items.weight, std=0.1)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = (self.users(users) * self.items(items)).sum(-1)
        return out


def world(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each user 30 items that were seen and 10 that come next; tastes of four factors, a few popular items."""
    draw = torch.Generator().manual_seed(seed)
    tastes = torch.randn(USERS, 4, generator=draw) @ torch.randn(ITEMS, 4, generator=draw).T
    popularity = -1.2 * torch.arange(1, ITEMS + 1).log()
    items = torch.multinomial((1.5 * tastes + popularity).softmax(1), 40, generator=draw)
    return items[:, :30], items[:, 30:]


def recommend(share: float, seed: int, steps: int = 600) -> tuple[float, float, float]:
    """Return the recall among 20, and how many weights an item of the most and of the least popular fifth has."""
    (seen, to_come), spec = world(seed), DynamicSparse(density=0.1, share=share, period=20)
    with seeded(seed, "factors"):
        module: Any = Factors()
    spec.attach(module, seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.0)
    draw = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        moment = Moment(step, (step - 1) / steps, seed)
        spec.before(module, moment)
        users = torch.randint(USERS, (512,), generator=draw)
        liked = seen[users, torch.randint(30, (512,), generator=draw)]
        other = torch.randint(ITEMS, (512,), generator=draw)
        functional.softplus(module(users, other) - module(users, liked)).mean().backward()
        optimizer.step()
        spec.after(module, optimizer, moment)
        optimizer.zero_grad()
    with torch.no_grad():
        best = (module.users.weight @ module.items.weight.T).scatter(1, seen, -math.inf).topk(20).indices
    recall = float((best[:, :, None] == to_come[:, None]).any(1).float().mean())
    held = torch.bincount(module.items.index // SIZE, minlength=ITEMS).float()
    order = torch.bincount(seen.flatten(), minlength=ITEMS).argsort(descending=True)
    return recall, float(held[order[:60]].mean()), float(held[order[-60:]].mean())


def test_moving_weights_go_to_popular_items() -> None:
    """Factors of users and items with 10 % of their weights: recall .22 against .08, two seeds; 3.7 weights for a popular item, 0.6 for a rare one."""
    for seed in range(2):
        (moving, popular, rare), (standing, usual, usual_too) = recommend(0.3, seed), recommend(0.0, seed)
        assert moving > standing + 0.06
        assert popular > 3 * rare and abs(usual - usual_too) < 0.5


def test_processes_choose_the_same_places_from_all_their_data(tmp_path: Path) -> None:
    """Two processes with half of the batch each end where one with the whole batch does; each alone would choose others."""
    spec = DynamicSparse(density=0.3, share=0.5, period=2)

    def trained(rank: int | None) -> Any:
        module = spec.attach(small().double(), 0)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
        rows = slice(None) if rank is None else slice(10 * rank, 10 * rank + 10)
        for step in range(1, 7):
            moment = Moment(step, step / 10)
            spec.before(module, moment)
            functional.cross_entropy(module(X[rows].double()), Y[rows]).backward()
            for p in module.parameters():
                if torch.distributed.is_initialized() and p.grad is not None:
                    torch.distributed.all_reduce(p.grad)
                    p.grad.div_(2)
            optimizer.step()
            spec.after(module, optimizer, moment)
            optimizer.zero_grad()
        return module

    def work(rank: int) -> None:
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=rank, world_size=2)
        torch.save(trained(rank).state_dict(), tmp_path / f"{rank}.pt")
        torch.distributed.destroy_process_group()

    torch.multiprocessing.start_processes(work, nprocs=2, start_method="fork")
    alone, half = trained(None), trained(0)
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(state["1.index"], alone[1].index) and torch.allclose(state["1.values"], alone[1].values)
    assert not torch.equal(half[1].index, alone[1].index)


def test_embedding_tables_become_sparse_too() -> None:
    spec = DynamicSparse(density=0.5, share=0.5, period=1)

    def build() -> nn.Module:
        with seeded(0, "factors"):
            return Factors(9, 7, 4)

    pairs = torch.stack([torch.arange(8), torch.arange(8) % 7], dim=1)
    check_adapter(spec, build, pairs, lambda module, batch: module(batch[:, 0], batch[:, 1]), starts_there=False)
    module: Any = spec.attach(build(), 0)
    assert module.items.index.numel() == 14
    merged: Any = spec.merge(module)
    assert type(merged.items) is nn.Embedding and merged.items.padding_idx == 0
    with pytest.raises(InputError, match="the model has no linear layer named nowhere"):
        DynamicSparse(targets=("nowhere",)).attach(build(), 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"density": 0.0}, r"density must lie in \(0, 1\], found 0"),
        ({"share": 1.5}, r"share must lie in \[0, 1\], found 1.5"),
        ({"period": 0}, "period must be >= 1, found 0"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicSparse(**fields)


def test_contract() -> None:
    def logits(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return out

    spec = DynamicSparse(density=0.3, share=0.4, period=2)
    check_adapter(spec, lambda: SPEC.build(0).module, IDS, logits, starts_there=False)
    untied = dataclasses.replace(SPEC, tie_embeddings=False)
    check_adapter(spec, lambda: untied.build(0).module, IDS, logits, starts_there=False)
    check_adapter(spec, small, X, lambda module, batch: module(batch), starts_there=False)
