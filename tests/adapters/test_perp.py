"""PERP: zeros that stay, the forms of its update, what trains, and that a few parameters recover most of what pruning took."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from outlay.adapters import Perp
from outlay.errors import InputError
from outlay.models import Mlp, Transformer
from outlay.models.base import seeded
from outlay.testing import check_adapter

SPEC = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (4, 8), generator=torch.Generator().manual_seed(0))
X = torch.randn(8, 12, generator=torch.Generator().manual_seed(1))
Update = Literal["masked", "scaled", "pruned", "none"]


def small() -> Any:
    return Mlp(12, 4, (16,)).build(0).module


def shaken(module: nn.Module) -> Any:
    draw = torch.Generator().manual_seed(1)
    for p in module.parameters():
        if p.requires_grad:
            p.data.add_(torch.randn(p.shape, generator=draw))
    return module


def zeros(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: part.weight == 0 for name, part in module.named_modules() if isinstance(part, nn.Linear)}


def pruned_by_hand(sparsity: float) -> dict[str, torch.Tensor]:
    """Weights of the model pruned by torch's own magnitude pruning."""
    from torch.nn.utils import prune

    module = small()
    for part in module.modules():
        if isinstance(part, nn.Linear):
            prune.l1_unstructured(part, "weight", amount=sparsity)  # type: ignore[no-untyped-call]
            prune.remove(part, "weight")  # type: ignore[no-untyped-call]
    return {name: part.weight.detach() for name, part in module.named_modules() if isinstance(part, nn.Linear)}


@pytest.mark.parametrize("update", ["masked", "scaled", "pruned", "none"])
def test_it_starts_as_the_pruned_model_and_merging_keeps_every_zero(update: Update) -> None:
    spec, expected = Perp(0.6, update=update, rank=2), pruned_by_hand(0.6)
    module = spec.attach(small(), 0)
    at_start: Any = spec.merge(copy.deepcopy(module))
    for name, weight in expected.items():
        assert torch.allclose(at_start.get_submodule(name).weight, weight, atol=1e-7), name
    merged: Any = spec.merge(shaken(module))
    for name, zero in zeros(merged).items():
        assert torch.equal(zero, expected[name] == 0), name
        moved = merged.get_submodule(name).weight[~zero] != expected[name][~zero]
        assert moved.all() if update != "none" else not moved.any()
    assert all(p.requires_grad for p in merged.parameters())


def test_a_plain_update_would_break_the_zeros() -> None:
    """That the mask in ``pruned`` matters: what it trains has no zeros, what it merges has them."""
    spec = Perp(0.6, update="pruned", rank=2)
    module = shaken(spec.attach(small(), 0))
    layer = module[1]
    unmasked = layer.base + 16.0 * layer.b @ layer.a
    assert (unmasked != 0).all()
    assert torch.allclose(layer.train()(X), X @ unmasked.T + layer.bias, atol=1e-4)
    masked = layer.base + torch.where(layer.base != 0, 16.0 * layer.b @ layer.a, 0.0)
    assert torch.allclose(layer.eval()(X), X @ masked.T + layer.bias, atol=1e-4)
    merged: Any = spec.merge(module)
    assert torch.allclose(merged[1].weight, masked)


def test_forms_by_their_formulas() -> None:
    masked = shaken(Perp(0.5, rank=3, alpha=6.0).attach(small(), 0))[1]
    assert torch.allclose(masked.weight, masked.base + 2.0 * (masked.base != 0) * (masked.b @ masked.a))
    scaled: Any = Perp(0.5, rank=3, update="scaled").attach(small(), 0).get_submodule("1")
    assert torch.allclose(scaled.a, torch.full((3, 12), 1 / math.sqrt(3))) and scaled.a.shape == (3, 12) and scaled.b.shape == (16, 3)
    shaken(scaled)
    assert torch.allclose(scaled.weight, scaled.base * (scaled.b @ scaled.a))


def test_an_overflow_leaves_zeros_alone() -> None:
    module: Any = Perp(0.5, rank=1).attach(small(), 0)
    module[1].a.data.fill_(1e30)
    module[1].b.data.fill_(1e30)
    weight = module[1].weight
    assert not weight[module[1].base == 0].any() and weight.isinf().any()


def trained(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(64, 128), nn.LayerNorm(128), nn.Linear(128, 128)
        self.norm2, self.head = nn.LayerNorm(128), nn.Linear(128, 10)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.first(x)))
        out: torch.Tensor = self.head(functional.relu(self.norm2(self.second(x))))
        return out


def test_what_trains() -> None:
    with seeded(0, "model"):
        build = Normed()
    norms = {"norm.weight", "norm.bias", "norm2.weight", "norm2.bias"}
    biases = {"first.bias", "second.bias", "head.bias"}
    factors = {"first.a", "first.b", "second.a", "second.b"}
    for spec, expected in (
        (Perp(), norms | biases | factors),
        (Perp(biases=False), norms | factors),
        (Perp(norms=False, update="none"), biases),
        (Perp(biases=False, norms=False, targets=("second",)), {"second.a", "second.b"}),
    ):
        assert trained(spec.attach(copy.deepcopy(build), 0)) == expected
    count = sum(p.numel() for p in Perp(rank=5).attach(copy.deepcopy(build), 0).parameters() if p.requires_grad)
    assert count == 5 * (64 + 128) + 5 * (128 + 128) + 4 * 128 + 128 + 128 + 10
    llama = Perp(update="none").attach(SPEC.build(0).module, 0)
    assert {name.rsplit(".", 2)[-2] for name in trained(llama)} == {"input_layernorm", "post_attention_layernorm", "norm"}
    with pytest.raises(InputError, match="PERP has nothing to train"):
        Perp(update="none", norms=False).attach(SPEC.build(0).module, 0)


def test_masks() -> None:
    pattern: Any = Perp(pattern=(2, 4)).attach(small(), 0)
    assert ((pattern[1].base.reshape(-1, 4) != 0).sum(1) == 2).all()
    drawn: Any = [Perp(0.3, mask="random").attach(small(), seed).get_submodule("1") for seed in (1, 1, 2)]
    one, same, other = (layer.base for layer in drawn)
    assert int((one == 0).sum()) == round(0.3 * 16 * 12) and torch.equal(one, same) and not torch.equal(one, other)
    given: Any = small()
    given[1].weight.data[3] = 0.0
    kept: Any = shaken(Perp(0.9, mask="given", rank=2).attach(given, 0))
    assert not kept[1].weight[3].any() and (kept[1].weight != 0).sum() == 15 * 12
    with pytest.raises(InputError, match="2 of every 5 inputs cannot be kept: the layer has 12"):
        Perp(pattern=(2, 5)).attach(small(), 0)


@pytest.mark.parametrize("update", ["masked", "none"])
def test_wanda_prunes_by_what_the_examples_show(update: Update) -> None:
    """The largest |w| |x| of each output, norms over the examples asked for, of the dense model."""
    spec = Perp(0.5, mask="wanda", update=update, examples=5, rank=2)
    assert spec.prime_examples == 5 and Perp().prime_examples == 0
    module, dense = spec.attach(small(), 0), small()
    assert torch.allclose(module.eval()(X), dense.eval()(X))
    spec.prime(module, lambda number: module(X[number : number + 1]).sum(), 0)
    inputs = X[:5], functional.relu(dense[1](X[:5]))
    merged: Any = spec.merge(module)
    for name, x in zip(("1", "4"), inputs, strict=True):
        weight = dense.get_submodule(name).weight.detach()
        scores = weight.abs() * x.norm(dim=0)
        best = scores.topk(weight.shape[1] // 2, dim=1).indices
        expected = torch.zeros_like(weight).scatter(1, best, weight.gather(1, best))
        assert torch.equal(merged.get_submodule(name).weight.detach(), expected), name
        assert not torch.equal(expected != 0, weight.abs() >= weight.abs().flatten().median())


def digits(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order[:1200]], y[order[:1200]], x[order[1200:]], y[order[1200:]]


def fit(module: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int, lr: float, seed: int) -> None:
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        rows = torch.randint(len(x), (128,), generator=draw)
        functional.cross_entropy(module(x[rows]), y[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()


def accuracy(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float((module.eval()(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_biases_and_norms_recover_most_of_what_pruning_took(seed: int) -> None:
    """Handwritten digits, held-out accuracy at 90 % sparsity; 100 updates of 778 of 26 634 parameters, then with a masked update."""
    x, y, held_x, held_y = digits(seed)
    with seeded(seed, "model"):
        dense = Normed()
    fit(dense, x, y, 200, 3e-3, seed)
    whole = accuracy(dense, held_x, held_y)
    few: Any = Perp(0.9, update="none").attach(copy.deepcopy(dense), seed)
    lost = accuracy(few, held_x, held_y)
    fit(few.train(), x, y, 100, 1e-2, seed)
    recovered = accuracy(few, held_x, held_y)
    more = Perp(0.9, update="masked", rank=4).attach(copy.deepcopy(dense), seed)
    fit(more.train(), x, y, 100, 3e-3, seed)
    assert whole > 0.96 and lost < 0.6
    assert recovered > lost + 0.85 * (whole - lost)
    assert accuracy(more, held_x, held_y) > lost + 0.9 * (whole - lost)
    assert int((few.first.weight != 0).sum()) == round(0.1 * 64 * 128)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity must lie in \[0, 1\), found 1"),
        ({"pattern": (4, 4)}, r"pattern must be \(N, M\) with 0 < N < M, found \(4, 4\)"),
        ({"mask": "best"}, "mask must be magnitude, wanda, random or given, found 'best'"),
        ({"update": "lora"}, "update must be masked, scaled, pruned or none, found 'lora'"),
        ({"rank": 0}, "rank, alpha and examples must be > 0, found 0, 32.0 and 128"),
        ({"update": "none", "biases": False, "norms": False}, "something must be trained"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Perp(**fields)


@pytest.mark.parametrize(
    "spec",
    [
        Perp(rank=2),
        Perp(0.7, update="scaled", rank=2),
        Perp(pattern=(2, 4), update="pruned", rank=2),
        Perp(mask="random", update="none"),
        Perp(mask="wanda", examples=6, rank=2),
    ],
)
def test_contract(spec: Perp) -> None:
    def logits(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return out

    check_adapter(spec, lambda: SPEC.build(0).module, IDS, logits, starts_there=False)
    check_adapter(spec, small, X, lambda module, batch: module(batch), starts_there=False)
