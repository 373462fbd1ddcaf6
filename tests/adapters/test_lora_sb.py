"""LoRA-SB: the subspace it takes from the gradients, and what a step in it does."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from outlay.adapters import LoraSb, LoraXs
from outlay.adapters.lora_xs import Core
from outlay.models import Transformer
from outlay.testing import check_adapter

SPEC = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (4, 8), generator=torch.Generator().manual_seed(0))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(out: int, inner: int, seed: int = 0) -> Any:
    layer = nn.utils.skip_init(nn.Linear, inner, out, bias=False, dtype=torch.float64)
    layer.weight.data = numbers(out, inner, seed=seed) / inner**0.5
    return nn.Sequential(layer)


def primed(spec: LoraSb, out: int = 9, inner: int = 7) -> tuple[Core, torch.Tensor, torch.Tensor]:
    """The layer, the weight it had, and the sum of the gradients as it should be."""
    base = linear(out, inner)
    w = base[0].weight.detach().clone()
    x, y = numbers(spec.prime_examples, inner, seed=3), numbers(spec.prime_examples, out, seed=4)
    adapted: Any = spec.attach(base, seed=0)
    spec.prime(adapted, lambda number: (adapted(x[number]) - y[number]).square().sum(), seed=0)
    return adapted[0], w, 2 * (x @ w.T - y).T @ x


@pytest.mark.parametrize("sign", [True, False])
def test_the_start_is_the_best_approximation_of_the_step(sign: bool) -> None:
    spec = LoraSb(rank=3, prime_examples=5, rate=0.01, sign=sign)
    layer, w, g = primed(spec)
    step = -0.01 * (g.sign() if sign else g)
    left, values, right = torch.linalg.svd(step, full_matrices=False)
    delta = layer.effective().detach() - w
    assert torch.allclose(delta, (left[:, :3] * values[:3]) @ right[:3], atol=1e-12)
    # Eckart and Young
    assert float((step - delta).square().sum()) == pytest.approx(float(values[3:].square().sum()))
    assert torch.allclose(layer.core.detach(), torch.diag(values[:3]))


def test_b_and_a_are_orthonormal_and_r_alone_is_trained() -> None:
    layer, _, _ = primed(LoraSb(rank=4, prime_examples=3))
    one = torch.eye(4, dtype=torch.float64)
    assert torch.allclose(layer.left.T @ layer.left, one) and torch.allclose(layer.right @ layer.right.T, one)
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == ["core"]
    assert layer.core.numel() == 16


def test_unmoved_it_starts_as_the_model_in_the_same_subspace() -> None:
    moved, w, _ = primed(LoraSb(rank=3, prime_examples=5))
    still, _, _ = primed(LoraSb(rank=3, prime_examples=5, moved=False))
    assert torch.equal(still.effective(), w) and not still.core.any()
    assert torch.equal(still.left, moved.left) and torch.equal(still.right, moved.right)


def test_a_step_of_r_is_the_full_gradient_projected() -> None:
    layer, _, _ = primed(LoraSb(rank=3, prime_examples=5))
    x, y = numbers(6, 7, seed=7), numbers(6, 9, seed=8)
    before = layer.effective().detach()
    full = 2 * (x @ before.T - y).T @ x
    (layer(x) - y).square().sum().backward()
    assert layer.core.grad is not None
    with torch.no_grad():
        layer.core.sub_(1e-3 * layer.core.grad)
    projected = layer.left @ layer.left.T @ full @ layer.right.T @ layer.right
    assert torch.allclose(layer.effective() - before, -1e-3 * projected, atol=1e-14)


def test_gradients_in_bfloat16_are_summed_in_float32() -> None:
    """256 + 1 is 256 in bfloat16: of the sums below, hundreds of small gradients would be lost on the large first one."""
    base = linear(2, 2).to(torch.bfloat16)
    spec = LoraSb(rank=2, prime_examples=257, rate=1.0, sign=False)
    adapted: Any = spec.attach(base, seed=0)
    x = torch.eye(2, dtype=torch.bfloat16)
    spec.prime(adapted, lambda number: (256.0 if number == 0 else 1.0) * adapted(x).sum(), seed=0)
    core = adapted[0]
    assert torch.allclose(core.left @ core.core @ core.right, torch.full((2, 2), -512.0))


def test_a_weight_out_of_the_graph_and_a_failing_loss_leave_nothing_behind() -> None:
    used, idle = linear(4, 4), linear(4, 4, seed=1)
    both: Any = nn.Sequential(used, idle)
    spec = LoraSb(rank=2, prime_examples=2)
    adapted: Any = spec.attach(both, seed=0)
    flags = {name: p.requires_grad for name, p in adapted.named_parameters()}
    spec.prime(adapted, lambda number: adapted[0](numbers(1, 4)).sum(), seed=0)
    assert adapted[0][0].core.any() and not adapted[1][0].core.any()

    def fails(number: int) -> torch.Tensor:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        spec.prime(adapted, fails, seed=0)
    assert flags == {name: p.requires_grad for name, p in adapted.named_parameters()}
    adapted(numbers(1, 4)).sum().backward()
    assert adapted[0][0].frozen.grad is None


@functools.cache
def left_over(spec: LoraSb | LoraXs, seed: int) -> float:
    """|W - target|^2 / |delta|^2 after 300 steps on a 48 x 48 regression whose target is off by a random delta of rank 4."""
    base = linear(48, 48, seed=seed).float()
    delta = (numbers(48, 4, seed=seed + 10) @ numbers(4, 48, seed=seed + 20) / 48).float()
    target = base[0].weight.detach() + delta
    draw = torch.Generator().manual_seed(seed)
    adapted: Any = spec.attach(base, seed)
    if isinstance(spec, LoraSb):
        x = torch.randn(spec.prime_examples, 48, generator=draw)
        spec.prime(adapted, lambda number: (adapted(x[number]) - x[number] @ target.T).square().mean(), seed)
    optimizer = torch.optim.Adam([adapted[0].core], lr=0.03)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        x = torch.randn(64, 48, generator=draw)
        optimizer.zero_grad()
        (adapted(x) - x @ target.T).square().mean().backward()
        optimizer.step()
        falling.step()
    return float((adapted[0].effective() - target).detach().square().sum() / delta.square().sum())


@pytest.mark.parametrize("seed", [0, 1])
def test_at_equal_parameters_the_gradients_subspace_beats_the_weights(seed: int) -> None:
    """16 trained numbers each: .99 is left by LoRA-XS, about .35 by LoRA-SB, about .14 by the raw gradient's subspace from R = 0."""
    weights = left_over(LoraXs(rank=4), seed)
    signs = left_over(LoraSb(rank=4, prime_examples=256, rate=1e-3), seed)
    raw = left_over(LoraSb(rank=4, prime_examples=256, rate=1e-3, sign=False, moved=False), seed)
    assert weights > 0.95 and signs < 0.5 and raw < 0.6 * signs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank must be >= 1, found 0"),
        ({"prime_examples": 0}, "prime_examples must be >= 1, found 0"),
        ({"rate": 0.0}, "rate must be > 0, found 0"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraSb(**fields)


def test_contract() -> None:
    def forward(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return out

    def perceptron() -> Any:
        return nn.Sequential(linear(12, 6), nn.Tanh(), linear(3, 12, seed=2)).float()

    check_adapter(LoraSb(rank=4, prime_examples=3), lambda: SPEC.build(0).module, IDS, forward, starts_there=False)
    check_adapter(LoraSb(rank=4, prime_examples=3, sign=False, moved=False), lambda: SPEC.build(0).module, IDS, forward)
    check_adapter(LoraSb(rank=4, prime_examples=3, moved=False), perceptron, numbers(8, 6).float(), lambda module, x: module(x))
