"""Intrinsic dimension: the projection by its matrices, what is shared, what merging leaves, and the measure itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from outlay.adapters import Intrinsic
from outlay.adapters.intrinsic import THETA, Fastfood, intrinsic_dimension, walsh_hadamard
from outlay.errors import InputError
from outlay.models import Transformer
from outlay.testing import check_adapter

SPEC = Transformer(hidden=16, layers=2, heads=2, feed_forward=24, context=32)
IDS = torch.randint(4, 99, (4, 8), generator=torch.Generator().manual_seed(0))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def perceptron(*widths: int, seed: int = 0) -> Any:
    parts: list[nn.Module] = []
    for number in range(len(widths) - 1):
        layer = nn.utils.skip_init(nn.Linear, widths[number], widths[number + 1])
        layer.weight.data = numbers(widths[number + 1], widths[number], seed=10 * seed + number).float() / widths[number] ** 0.5
        layer.bias.data.zero_()
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def forward(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return out


# ---- the projection --------------------------------------------------------------------------------------------------------------------


def hadamard(length: int) -> torch.Tensor:
    """By its entries: the parity of the ones that row and column share."""
    return torch.tensor([[(-1.0) ** (i & j).bit_count() for j in range(length)] for i in range(length)], dtype=torch.float64)


@given(st.integers(0, 7), st.integers(0, 10**6))
def test_the_transform_is_the_matrix_and_its_own_inverse_but_for_the_length(power: int, seed: int) -> None:
    x = numbers(3, 2**power, seed=seed)
    assert torch.allclose(walsh_hadamard(x), x @ hadamard(2**power))
    assert torch.allclose(walsh_hadamard(walsh_hadamard(x)), 2**power * x)


def test_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="the length must be a power of two, found 6"):
        walsh_hadamard(torch.ones(6))


@pytest.mark.parametrize(("shape", "dimensions", "length"), [((5, 7), 6, 64), ((8, 8), 64, 64), ((3,), 20, 32)])
def test_the_projection_is_the_product_of_its_matrices(shape: tuple[int, ...], dimensions: int, length: int) -> None:
    """And the gradient of theta is the transposed projection of the gradient of the tensor."""
    theta = nn.Parameter(numbers(dimensions, seed=1))
    root = nn.Module()
    root.register_parameter(THETA, theta)
    w = numbers(*shape)
    part = Fastfood(w, root, dimensions, None, torch.Generator().manual_seed(3))
    h, count = hadamard(length), w.numel()
    assert set(part.signs.tolist()) <= {-1, 1} and sorted(part.order.tolist()) == list(range(length))
    permutation = torch.eye(length, dtype=torch.float64)[part.order]
    g = part.gains.double()
    product = h @ torch.diag(g) @ permutation @ h @ torch.diag(part.signs.double())
    matrix = product[:count, :dimensions] / ((length * g.square().sum()).sqrt() * (count / length) ** 0.5)
    moved = part(w)
    assert torch.allclose(moved, w + (matrix @ theta).view(shape))
    gradient = numbers(*shape, seed=2)
    moved.backward(gradient)
    assert theta.grad is not None and torch.allclose(theta.grad, matrix.T @ gradient.flatten())


@pytest.mark.parametrize(("count", "dimensions"), [(5000, 50), (4096, 4096), (300, 3000)])
def test_the_length_of_theta_is_kept_whatever_the_size(count: int, dimensions: int) -> None:
    theta = numbers(dimensions)
    part = Fastfood(torch.zeros(count), nn.Module(), dimensions, None, torch.Generator().manual_seed(0))
    projected = part.projected(theta, count)
    assert float(projected.norm() / theta.norm()) == pytest.approx(1, abs=0.12)
    # evenly: no stretch of it holds much more than its part
    halves = [float(half.square().sum() / projected.square().sum()) for half in projected.chunk(2)]
    assert halves == pytest.approx([0.5, 0.5], abs=0.1)


# ---- the module ------------------------------------------------------------------------------------------------------------------------


def test_one_theta_moves_every_tensor_each_its_own_way() -> None:
    base = perceptron(6, 8, 8, 3)
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    adapted: Any = Intrinsic(20, structured=False).attach(base, seed=0)
    assert {name: p.shape for name, p in adapted.named_parameters() if p.requires_grad} == {"intrinsic_theta": (20,)}
    assert all(torch.equal(adapted[i].weight, before[f"{i}.weight"]) for i in (0, 2, 4))
    adapted.intrinsic_theta.data = numbers(20).float()
    length = adapted.intrinsic_theta.detach().norm()
    moves = {f"{i}.{own}": (getattr(adapted[i], own) - before[f"{i}.{own}"]).detach() for i in (0, 2, 4) for own in ("weight", "bias")}
    assert moves.keys() == before.keys()
    for move in moves.values():
        assert 0.3 < float(move.norm() / length) < 2
    one, other = moves["0.weight"].flatten()[:40], moves["2.weight"].flatten()[:40]
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.5


def test_scales_are_a_layers_and_counted() -> None:
    base = perceptron(6, 8, 3)
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    adapted: Any = Intrinsic(20).attach(base, seed=0)
    assert adapted.intrinsic_theta.shape == (18,) and adapted.intrinsic_scales.tolist() == [1, 1]
    adapted.intrinsic_theta.data = numbers(18).float()
    once = {(i, own): getattr(adapted[i], own).detach() - before[f"{i}.{own}"] for i in (0, 2) for own in ("weight", "bias")}
    adapted.intrinsic_scales.data = torch.tensor([3.0, -0.5])
    for (i, own), move in once.items():
        expected = before[f"{i}.{own}"] + (3.0 if i == 0 else -0.5) * move
        assert torch.allclose(getattr(adapted[i], own), expected, atol=1e-5)


def test_tied_tensors_stay_tied_and_merging_leaves_the_original_class() -> None:
    base: Any = SPEC.build(0).module
    names, kind, head = list(base.state_dict()), type(base), type(base.lm_head)
    assert base.lm_head.weight is base.model.embed_tokens.weight
    untouched = forward(base, IDS).detach()
    spec = Intrinsic(60)
    adapted: Any = spec.attach(base, seed=0)
    assert torch.equal(forward(adapted, IDS), untouched)
    adapted.intrinsic_theta.data = numbers(len(adapted.intrinsic_theta)).float()
    assert torch.equal(adapted.lm_head.weight, adapted.model.embed_tokens.weight)
    expected = forward(adapted, IDS).detach()
    assert not torch.allclose(expected, untouched, atol=1e-2)
    merged: Any = spec.merge(copy.deepcopy(adapted))
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert list(merged.state_dict()) == names and type(merged) is kind and type(merged.lm_head) is head
    assert torch.allclose(forward(merged, IDS), expected, atol=1e-5)
    # the copy has a theta of its own
    assert torch.equal(forward(adapted, IDS), expected)


def test_targets_and_what_is_saved() -> None:
    adapted = Intrinsic(9, structured=False, targets=("weight",)).attach(perceptron(6, 8, 3), seed=0)
    assert sorted(adapted.state_dict()) == [
        "0.bias", "0.parametrizations.weight.original", "2.bias", "2.parametrizations.weight.original", "intrinsic_theta",
    ]  # fmt: skip
    with pytest.raises(InputError, match="the model has no tensor named wieght; did you mean 'weight'"):
        Intrinsic(targets=("wieght",)).attach(perceptron(6, 8, 3), seed=0)


def test_wrong_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="dimensions must be >= 1, found 0"):
        Intrinsic(0)
    with pytest.raises(InputError, match="2 dimensions leave none beside the scales of 2 layers"):
        Intrinsic(2).attach(perceptron(6, 8, 3), seed=0)


# ---- the measure -----------------------------------------------------------------------------------------------------------------------


def test_the_smallest_that_reaches_the_share() -> None:
    scores = {1000: 0.95, 10: 0.3, 100: 0.81, 300: 0.80}
    assert intrinsic_dimension(scores, 0.9) == 100
    assert intrinsic_dimension(scores, 0.9, share=1.0) == 1000
    assert intrinsic_dimension(scores, 0.2, share=1.0) == 10
    assert intrinsic_dimension(scores, 2.0) is None
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], found 0"):
        intrinsic_dimension(scores, 1.0, 0.0)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = pytest.importorskip("sklearn.datasets").load_digits()
    return torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)


def trained(module: Any, x: torch.Tensor, y: torch.Tensor, lr: float, steps: int = 150) -> float:
    """Share of right answers, on every third example, of a network trained on the others."""
    held = torch.arange(len(x)) % 3 == 0
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=lr)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(0, int((~held).sum()), (128,), generator=draw)
        nn.functional.cross_entropy(module(x[~held][rows]), y[~held][rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
        falling.step()
    with torch.no_grad():
        return float((module(x[held]).argmax(1) == y[held]).float().mean())


def test_a_pretrained_network_has_a_smaller_intrinsic_dimension() -> None:
    """Digits half mixed with their own shifted by a pixel: at most 30 dimensions, and more than 100 from random weights, of 2410 weights."""
    x, y = digits()
    pretrained, fresh = perceptron(64, 32, 10), perceptron(64, 32, 10, seed=1)
    trained(pretrained, x, y, 0.01, steps=300)
    shifted = 0.5 * x + 0.5 * x.view(-1, 8, 8).roll(1, 2).reshape(-1, 64)

    def measured(base: Any) -> int | None:
        full = trained(copy.deepcopy(base), shifted, y, 0.01)
        scores = {d: trained(Intrinsic(d, structured=False).attach(copy.deepcopy(base), seed=0), shifted, y, 2 / d**0.5) for d in (30, 100)}
        return intrinsic_dimension(scores, full)

    warm, cold = measured(pretrained), measured(fresh)
    assert warm == 30
    assert cold is None


def test_contract() -> None:
    check_adapter(Intrinsic(60), lambda: SPEC.build(0).module, IDS, forward)
    check_adapter(Intrinsic(30, structured=False), lambda: perceptron(6, 12, 3), numbers(8, 6).float(), lambda module, x: module(x))
