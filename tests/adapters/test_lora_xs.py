"""LoRA-XS: what it starts from, what it trains, and where it cannot go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from outlay.adapters import LoraXs
from outlay.adapters.lora_xs import Core, leading_triplets
from outlay.models import Transformer
from outlay.testing import check_adapter

SPEC = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (4, 8), generator=torch.Generator().manual_seed(0))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(out: int, inner: int, seed: int = 0) -> Any:
    layer = nn.utils.skip_init(nn.Linear, inner, out, dtype=torch.float64)
    layer.weight.data, layer.bias.data = numbers(out, inner, seed=seed), numbers(out, seed=seed + 1)
    return nn.Sequential(layer)


def attached(spec: LoraXs, base: Any, seed: int) -> Any:
    return spec.attach(base, seed)


def perceptron() -> Any:
    parts = [linear(12, 6), nn.Tanh(), linear(3, 12, seed=2)]
    return nn.Sequential(*parts).float()


@pytest.mark.parametrize("scaled", [True, False])
def test_the_start_by_the_formula(scaled: bool) -> None:
    base = linear(7, 5)
    w, b = base[0].weight.detach().clone(), base[0].bias.detach().clone()
    layer = attached(LoraXs(rank=3, alpha=6.0, deviation=0.5, scaled=scaled), base, 1)[0]
    assert isinstance(layer, Core)
    left, values, right = torch.linalg.svd(w, full_matrices=False)
    assert layer.core.shape == (3, 3) and [p is layer.core for p in base.parameters() if p.requires_grad] == [True]
    b_a = (left[:, :3] * (values[:3] if scaled else 1)) @ layer.core @ right[:3]
    assert torch.allclose(layer.effective(), w + 6.0 / 3 * b_a)
    x = numbers(4, 5, seed=9)
    assert torch.allclose(base(x), x @ (w + 2 * b_a).T + b)


def test_r_is_drawn_with_the_deviation() -> None:
    core = attached(LoraXs(rank=60, deviation=1e-5), linear(64, 64), 0)[0].core.detach()
    assert float(core.std()) == pytest.approx(1e-5, rel=0.05) and abs(float(core.mean())) < 1e-6
    assert not attached(LoraXs(deviation=0.0), linear(6, 6), 0)[0].core.any()


def test_the_rank_is_bounded_by_the_smaller_side() -> None:
    assert attached(LoraXs(rank=9, alpha=9.0), linear(4, 20), 0)[0].core.shape == (4, 4)


@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (12, 9)])
def test_leading_triplets_of_a_decaying_spectrum_are_the_exact_ones(shape: tuple[int, int]) -> None:
    left, _, right = torch.linalg.svd(numbers(*shape), full_matrices=False)
    values = 0.7 ** torch.arange(min(shape), dtype=torch.float64)
    matrix = (left * values) @ right
    u, s, v = leading_triplets(matrix, 6, torch.Generator().manual_seed(1))
    assert torch.allclose(s, values[:6], rtol=1e-9)
    assert torch.allclose((u * s) @ v, (left[:, :6] * values[:6]) @ right[:6], atol=1e-9)
    for basis in (u.T @ u, v @ v.T):
        assert torch.allclose(basis, torch.eye(6, dtype=torch.float64), atol=1e-12)


def test_without_power_iterations_a_flat_spectrum_is_missed() -> None:
    """So that the iterations are seen to matter."""
    matrix = numbers(120, 100)
    best = torch.linalg.svdvals(matrix)[:5]
    once = leading_triplets(matrix, 5, torch.Generator().manual_seed(0), iterations=0)[1]
    often = leading_triplets(matrix, 5, torch.Generator().manual_seed(0))[1]
    assert float((best - often).max() / best[0]) < 0.001 < 0.1 < float((best - once).max() / best[0])


def test_bfloat16_weights_keep_their_type_and_r_is_wider() -> None:
    base = linear(8, 8).to(torch.bfloat16)
    adapted: Any = LoraXs(rank=2).attach(base, seed=0)
    assert adapted[0].core.dtype == torch.float32
    assert adapted(torch.ones(1, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    merged: Any = LoraXs().merge(adapted)
    assert merged[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank must be >= 1, found 0"),
        ({"alpha": 0.0}, "alpha must be > 0, found 0"),
        ({"deviation": -1.0}, "deviation must be >= 0, found -1"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraXs(**fields)


def test_contract() -> None:
    def forward(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return out

    # with the default deviation R moves the start by about 1e-4
    check_adapter(LoraXs(rank=4, deviation=1e-7), lambda: SPEC.build(0).module, IDS, forward)
    check_adapter(LoraXs(rank=4), perceptron, numbers(8, 6).float(), lambda module, x: module(x), starts_there=False)
