"""SLTrain: every gradient, the fixed support, what is trained, and what the sparse part adds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_language import IDS, LARGER, LLAMA, logits_of, loss_of, text, trained
from torch import nn

from outlay.adapters import SLTrain
from outlay.adapters.sltrain import SparsePlusLowRank
from outlay.models import Mlp
from outlay.testing import check_adapter


def layer(spec: SLTrain, outputs: int = 7, inputs: int = 5, bias: bool = True, shake: bool = True) -> SparsePlusLowRank:
    """A layer in float64; B other than 0, as training would make it."""
    draw = torch.Generator().manual_seed(0)
    made = SparsePlusLowRank(nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64), spec, draw)
    if shake:
        made.b.data.normal_(generator=draw)
    return made


def explicit(made: SparsePlusLowRank, scale: torch.Tensor | float) -> torch.Tensor:
    """W entry by entry."""
    rows = []
    kept = {int(place): number for number, place in enumerate(made.support)}
    outputs, inputs = made.b.shape[0], made.a.shape[1]
    for i in range(outputs):
        entries = []
        for j in range(inputs):
            entry = scale * torch.stack([made.b[i, k] * made.a[k, j] for k in range(made.a.shape[0])]).sum()
            entries.append(entry + made.values[kept[i * inputs + j]] if i * inputs + j in kept else entry)
        rows.append(torch.stack(entries))
    return torch.stack(rows)


@pytest.mark.parametrize("trained_scale", [False, True])
def test_forward_and_all_gradients_equal_autograd_through_explicit_weights(trained_scale: bool) -> None:
    made = layer(SLTrain(rank=3, alpha=6.0, density=0.4, trained_scale=trained_scale))
    assert len(made.support) == math.floor(0.4 * 35)
    scale = 6.0 / 3 if made.gain is None else made.gain.tanh()
    x = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights = torch.randn(2, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    over = [x, *made.parameters()]
    assert made.bias is not None
    out, expected = made(x), x @ explicit(made, scale).T + made.bias
    assert torch.allclose(out, expected, rtol=1e-12)
    assert torch.allclose(made.effective(), explicit(made, scale), rtol=1e-12)
    ours = torch.autograd.grad((out.tanh() * weights).sum(), over)
    theirs = torch.autograd.grad((expected.tanh() * weights).sum(), over)
    assert len(ours) == (6 if trained_scale else 5)
    for one, other in zip(ours, theirs, strict=True):
        assert other.any()
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_an_input_without_batch_and_one_without_gradient() -> None:
    made = layer(SLTrain(rank=2, density=0.2))
    x = torch.ones(5, dtype=torch.float64)
    made(x).sum().backward()
    assert made.bias is not None
    assert torch.allclose(made.values.grad, torch.ones_like(made.values))  # type: ignore[arg-type]
    assert torch.allclose(made(x), made.effective().sum(1) + made.bias)


def test_the_dense_weights_are_not_kept_for_the_backward_pass() -> None:
    made = layer(SLTrain(rank=1, density=0.05), outputs=40, inputs=40)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made(torch.ones(3, 40, dtype=torch.float64, requires_grad=True))
    assert kept
    assert max(kept) < 40 * 40 // 2
    assert sum(kept) <= 3 * 40 + 40 + 40 + 2 * 80 + 80


def test_half_precision_by_autocast_agrees() -> None:
    made = layer(SLTrain(rank=3, density=0.3)).float()
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        out = made(x)
    out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), made(x), rtol=0.05, atol=0.05 * float(out.detach().abs().max()))
    assert made.values.grad is not None
    assert made.values.grad.dtype == torch.float32


def test_the_start() -> None:
    """A, v and the bias lie within their bounds and reach near them; B is 0, so W is v at the support and 0 elsewhere."""
    made = layer(SLTrain(rank=6, density=0.5), outputs=60, inputs=30, shake=False)
    assert made.bias is not None
    for values, bound in ((made.a, 30**-0.5), (made.values, 30**-0.5), (made.bias, 60**-0.5)):
        assert 0.9 * bound < float(values.detach().abs().max()) <= bound
        assert abs(float(values.detach().mean())) < 0.3 * bound
    assert not made.b.any()
    weight = made.effective().flatten()
    assert torch.equal(weight[made.support], made.values)
    assert int((weight != 0).sum()) == 900


def test_the_support_is_sorted_without_repeats_even_and_of_its_layer() -> None:
    module = SLTrain(rank=2, density=0.5).attach(Mlp(64, 40, hidden=(40, 40)).build(0).module, seed=0)
    parts = [part for part in module.modules() if isinstance(part, SparsePlusLowRank)]
    supports = [part.support for part in parts]
    for part in parts:
        assert part.support.dtype == torch.int64
        assert bool((part.support[1:] > part.support[:-1]).all())
        # the halves of W hold equal shares but for chance: a deviation of 5 sigma is a mistake
        total = part.b.shape[0] * part.a.shape[1]
        assert abs(int((part.support < total // 2).sum()) - total // 4) < 5 * math.sqrt(total / 16)
    assert not torch.equal(supports[1], supports[2])


def test_the_rank_is_full_and_without_the_sparse_part_low() -> None:
    made = layer(SLTrain(rank=3, density=0.5), outputs=12, inputs=12)
    assert torch.linalg.matrix_rank(made.effective()) == 12
    low = layer(SLTrain(rank=3, density=0.0), outputs=12, inputs=12)
    assert torch.linalg.matrix_rank(low.effective()) == 3
    assert torch.allclose(low.effective(), 32.0 / 3 * low.b @ low.a, rtol=1e-12)
    assert low.values.numel() == 0
    nn.functional.mse_loss(low(torch.eye(12, dtype=torch.float64)), torch.eye(12, dtype=torch.float64)).backward()
    torch.optim.AdamW(low.parameters()).step()


def test_trained_parameters_by_the_formula_and_all_else_stays_dense() -> None:
    dense = LLAMA.build(0).module
    names = {name for name, _ in dense.named_parameters() if "_proj" not in name}
    total = trained(dense)
    module = SLTrain(rank=3, density=0.1).attach(dense, seed=0)
    square, wide = 3 * (16 + 16) + 25, 3 * (16 + 24) + 38  # floor(25.6) and floor(38.4) entries
    saved = 2 * (4 * (256 - square) + 3 * (384 - wide))
    assert trained(module) == total - saved
    assert names <= {name for name, p in module.named_parameters() if p.requires_grad}


def test_the_start_depends_on_the_seed_alone() -> None:
    def start(seed: int) -> dict[str, torch.Tensor]:
        return SLTrain(rank=2, density=0.2).attach(LLAMA.build(0).module, seed).state_dict()

    one, again, other = start(1), start(1), start(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    changed = [name for name in one if name.endswith((".a", ".values", ".support"))]
    assert len(changed) == 3 * 14
    assert not any(torch.equal(one[name], other[name]) for name in changed)


def test_contract() -> None:
    spec = SLTrain(rank=2, density=0.2)
    check_adapter(spec, lambda: LLAMA.build(0).module, IDS, logits_of, starts_there=False)
    inputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    spec = SLTrain(rank=2, density=0.2, trained_scale=True)
    check_adapter(spec, lambda: Mlp(5, 3, hidden=(8,)).build(0).module, inputs, lambda module, x: module(x), starts_there=False)


def test_the_support_never_changes() -> None:
    made = layer(SLTrain(rank=2, density=0.3))
    before, optimizer = made.support.clone(), torch.optim.SGD(made.parameters(), lr=1e-4)
    untouched = made.effective().detach() - 16.0 * (made.b @ made.a).detach()
    for _ in range(5):
        optimizer.zero_grad()
        made(torch.eye(5, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    sparse = made.effective().detach() - 16.0 * (made.b @ made.a).detach()
    assert torch.equal(made.support, before)
    outside = torch.ones(35, dtype=torch.bool)
    outside[made.support] = False
    assert float(sparse.flatten()[outside].abs().max()) < 1e-10 * max(1.0, float(made.effective().detach().abs().max()))
    assert not torch.allclose(sparse, untouched)


def test_in_a_transformer_the_sparse_part_is_what_training_begins_with() -> None:
    """With B = 0 and nothing beside it in any layer, every block is at a point of rest: no layer of it has a gradient."""

    def gradients(density: float) -> list[bool]:
        module = SLTrain(rank=2, density=density).attach(LARGER.build(0).module, seed=0)
        loss_of(module, text(4, 16, 1)).backward()
        parts = [part for part in module.modules() if isinstance(part, SparsePlusLowRank)]
        return [bool(part.b.grad.any()) for part in parts]  # type: ignore[union-attr]

    assert not any(gradients(0.0))
    assert all(gradients(0.05))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank must be >= 1 and alpha > 0, found 0 and 32"),
        ({"alpha": 0.0}, "rank must be >= 1 and alpha > 0, found 128 and 0"),
        ({"density": 1.5}, r"density must lie in \[0, 1\], found 1.5"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SLTrain(**fields)
