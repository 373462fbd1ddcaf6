"""Sparse spectral training: its update rule, unit vectors, the draws, and restarts that change nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from small_language import IDS, LLAMA, logits_of, trained
from torch import nn

from outlay.adapters import SparseSpectral
from outlay.adapters.base import Moment
from outlay.adapters.spectral import Spectrum
from outlay.models import Mlp
from outlay.testing import check_adapter


def plain(outputs: int = 8, inputs: int = 6) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, dtype=torch.float64)
    with torch.no_grad():
        for p in linear.parameters():
            p.normal_(generator=torch.Generator().manual_seed(1))
    return linear


def layer(rank: int = 2, outputs: int = 8, inputs: int = 6, seed: int = 0) -> Spectrum:
    return Spectrum(plain(outputs, inputs), rank, torch.Generator().manual_seed(seed))


def whole(made: Spectrum) -> tuple[torch.Tensor, torch.Tensor]:
    """U and V with every column in its place."""
    u, v = torch.empty(made.u.shape[0], len(made.s)).double(), torch.empty(made.v.shape[0], len(made.s)).double()
    u[:, made.active], u[:, made.rest] = made.u.detach(), made.u_rest
    v[:, made.active], v[:, made.rest] = made.v.detach(), made.v_rest
    return u, v


def shaken(made: Spectrum) -> Spectrum:
    """As training would leave it: values in another order, vectors of length 1 that are not orthogonal."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        made.s.add_(0.3 * torch.randn(made.s.shape, generator=draw, dtype=torch.float64))
        for factor in made.factors():
            factor.add_(0.3 * torch.randn(factor.shape, generator=draw, dtype=torch.float64))
    made.normalise()
    return made


@pytest.mark.parametrize(("outputs", "inputs"), [(8, 6), (6, 8)])
def test_the_start_is_the_layer(outputs: int, inputs: int) -> None:
    made, weight = layer(2, outputs, inputs), plain(outputs, inputs).weight
    u, v = whole(made)
    assert all(t.is_contiguous() for t in made.state_dict().values())
    assert torch.allclose(made.effective(), weight, atol=1e-12)
    assert torch.allclose((u * made.s) @ v.T, weight, atol=1e-12)
    assert torch.allclose(u.T @ u, torch.eye(6).double(), atol=1e-12)
    assert torch.allclose(made.s, torch.linalg.svdvals(weight))


def test_the_update_rule() -> None:
    """s has its gradient; active vectors theirs without the factor s_i, hence s_i times it is the gradient."""
    made = shaken(layer(rank=3))
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    made(x).tanh().square().sum().backward()
    u, v = (factor.requires_grad_() for factor in whole(made))
    s = made.s.detach().clone().requires_grad_()
    weight = (u * s) @ v.T
    weight.retain_grad()
    assert made.bias is not None
    (x @ weight.T + made.bias).tanh().square().sum().backward()
    assert weight.grad is not None
    assert torch.allclose(made.s.grad, s.grad)  # type: ignore[arg-type]
    active = made.active
    assert torch.allclose(made.u.grad, weight.grad @ v[:, active])  # type: ignore[arg-type]
    assert torch.allclose(made.v.grad, weight.grad.T @ u[:, active])  # type: ignore[arg-type]
    assert torch.allclose(made.u.grad * s[active], u.grad[:, active])  # type: ignore[index, operator]
    assert torch.allclose(made.v.grad * s[active], v.grad[:, active])  # type: ignore[index, operator]
    assert not any(buffer.requires_grad for buffer in made.buffers())


def test_a_value_below_zero_turns_its_vectors_rule_round() -> None:
    made = layer(rank=2)
    with torch.no_grad():
        made.s[made.active[1]] *= -1
    weight = made.effective()
    ones = torch.arange(48.0, dtype=torch.float64).reshape(8, 6)
    (weight * ones).sum().backward()
    sign = torch.tensor([1.0, -1.0]).double()
    assert torch.allclose(made.u.grad, (ones @ made.v) * sign)  # type: ignore[arg-type]
    assert torch.allclose(made.v.grad, (ones.T @ made.u) * sign)  # type: ignore[arg-type]


def test_half_precision_by_autocast_agrees() -> None:
    made = layer(rank=2).float()
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        out = made(x)
        assert out.dtype == torch.bfloat16
        out.float().square().sum().backward()
    assert made.u.grad is not None
    half = made.u.grad.clone()
    full = torch.autograd.grad(made(x).square().sum(), made.u)[0]
    assert torch.allclose(half, full, atol=0.05 * float(full.abs().max()))


def test_choosing_anew_and_decomposing_keep_the_product() -> None:
    made = shaken(layer(rank=2))
    before, held = made.effective().detach(), [id(t) for t in made.state_dict(keep_vars=True).values()]
    u, v = whole(made)
    seen = {tuple(made.active.tolist())}
    for seed in range(5):
        made.resample(torch.Generator().manual_seed(seed))
        seen.add(tuple(made.active.tolist()))
        assert torch.allclose(made.effective(), before, atol=1e-12)
        assert all(torch.equal(one, other) for one, other in zip(whole(made), (u, v), strict=True))
        assert sorted([*made.active.tolist(), *made.rest.tolist()]) == list(range(6))
    assert len(seen) > 2
    assert not torch.allclose(u.T @ u, torch.eye(6).double(), atol=0.01)
    made.decompose()
    u, v = whole(made)
    assert torch.allclose(made.effective(), before, atol=1e-12)
    for factor in (u, v):
        assert torch.allclose(factor.T @ factor, torch.eye(6).double(), atol=1e-12)
    assert bool((made.s[:-1] >= made.s[1:]).all())
    assert float(made.s.detach()[-1]) >= 0
    assert [id(t) for t in made.state_dict(keep_vars=True).values()] == held


def test_draws_follow_the_values() -> None:
    """One pair in proportion to its value; two as drawn one after the other without replacement."""
    made = layer(rank=1, outputs=3, inputs=3)
    made.s.data = torch.tensor([5.0, -3.0, 2.0]).double()  # size counts, not sign
    p, count = torch.tensor([0.5, 0.3, 0.2]), 4000
    draw = torch.Generator().manual_seed(0)
    ones = Counter(int(made._choose(1, draw)[0]) for _ in range(count))
    pairs = Counter(tuple(made._choose(2, draw)[0].tolist()) for _ in range(count))
    for i in range(3):
        assert abs(ones[i] / count - float(p[i])) < 5 * (0.25 / count) ** 0.5
        j, k = sorted({0, 1, 2} - {i})
        expected = float(p[j] * p[k] / (1 - p[j]) + p[k] * p[j] / (1 - p[k]))
        assert abs(pairs[(j, k)] / count - expected) < 5 * (0.25 / count) ** 0.5


def test_pairs_whose_value_is_zero_are_chosen_last() -> None:
    made = layer(rank=2, outputs=4, inputs=4)
    made.s.data = torch.tensor([0.0, 1.0, 0.0, 1e-3]).double()
    for seed in range(20):
        made.resample(torch.Generator().manual_seed(seed))
        assert made.active.tolist() == [1, 3]


def drive(spec: SparseSpectral, module: nn.Module, steps: range, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(3)
    x, y = torch.randn(20, 6, generator=draw, dtype=torch.float64), torch.randn(20, 8, generator=draw, dtype=torch.float64)
    made = next(part for part in module.modules() if isinstance(part, Spectrum))
    seen = []
    for step in steps:
        moment = Moment(step, 0.0)
        spec.before(module, moment)
        start = made.u.detach().clone()
        optimizer.zero_grad()
        (module(x) - y).square().mean().backward()
        optimizer.step()
        stepped, weight = made.u.detach().clone(), (whole(made)[0] * made.s.detach()) @ whole(made)[1].T
        spec.after(module, optimizer, moment)
        seen.append({"start": start, "stepped": stepped, "end": made.u.detach().clone(), "active": made.active.tolist(), "w": weight})
    return seen


def test_after_every_update_the_active_vectors_are_of_length_one_and_warm_up_after_a_choice() -> None:
    spec = SparseSpectral(rank=2, period=6, warmup=4)
    module = spec.attach(nn.Sequential(plain()), seed=0)
    seen = drive(spec, module, range(1, 15), torch.optim.AdamW(module.parameters(), lr=0.05))
    shares = [1.0] * 5 + [None, 0.25, 0.5, 0.75, 1.0, 1.0, None, 0.25, 0.5]
    for share, at in zip(shares, seen, strict=True):
        assert torch.allclose(at["end"].norm(dim=0), torch.ones(2).double())
        if share is not None:
            expected = nn.functional.normalize(at["start"] + share * (at["stepped"] - at["start"]), dim=0)
            assert torch.allclose(at["end"], expected, rtol=1e-12)
    active = [at["active"] for at in seen]
    assert active[0] == active[4]
    assert active[5] == active[10]
    assert len({tuple(chosen) for chosen in active}) > 1


def test_a_choice_forgets_the_state_of_the_active_vectors_and_a_round_that_of_the_values() -> None:
    """Six pairs, four at a time: a round is two choices."""
    spec = SparseSpectral(rank=4, period=3, warmup=0)
    module = spec.attach(nn.Sequential(plain()), seed=0)
    made = next(part for part in module.modules() if isinstance(part, Spectrum))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    drive(spec, module, range(1, 4), optimizer)
    assert made.u not in optimizer.state
    assert made.v not in optimizer.state
    assert float(optimizer.state[made.s]["step"]) == 3
    u, _ = whole(made)
    assert not torch.allclose(u.T @ u, torch.eye(6).double(), atol=1e-6)
    drive(spec, module, range(4, 7), optimizer)
    assert made.s not in optimizer.state
    assert made.bias is not None
    assert float(optimizer.state[made.bias]["step"]) == 6
    u, _ = whole(made)
    assert torch.allclose(u.T @ u, torch.eye(6).double(), atol=1e-12)


def test_with_all_pairs_active_every_direction_is_trained() -> None:
    made = layer(rank=9)
    assert made.active.tolist() == list(range(6))
    assert made.u_rest.shape == (8, 0)
    made(torch.eye(6, dtype=torch.float64)).square().sum().backward()
    assert made.u.grad is not None
    assert bool((made.u.grad.norm(dim=0) > 0).all())
    made.resample(torch.Generator().manual_seed(0))
    assert made.active.tolist() == list(range(6))


def test_it_comes_closer_to_a_target_than_any_low_rank_update_of_more_trained_numbers() -> None:
    """W is to become W + D with D of full rank; an update of rank r leaves at least what D's singular values beyond r hold."""
    spec = SparseSpectral(rank=2, period=10, warmup=2)
    module = spec.attach(nn.Sequential(plain()), seed=0)
    made = next(part for part in module.modules() if isinstance(part, Spectrum))
    change = 0.5 * torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    target = plain().weight.detach() + change
    made.bias = None
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, weight_decay=0.0)
    for step in range(1, 601):
        spec.before(module, Moment(step, 0.0))
        optimizer.zero_grad()
        loss = (module(torch.eye(6, dtype=torch.float64)) - target.T).square().sum()
        loss.backward()
        optimizer.step()
        spec.after(module, optimizer, Moment(step, 0.0))
    assert trained(made) == 2 * (8 + 6) + 6 < 3 * (8 + 6)
    left = torch.linalg.svdvals(change)[3:].square().sum()
    assert float(loss.detach()) < 0.5 * float(left)


def test_trained_parameters_by_the_formula_and_all_else_stays_dense() -> None:
    dense = LLAMA.build(0).module
    names, total = {name for name, _ in dense.named_parameters() if "_proj" not in name}, trained(dense)
    module = SparseSpectral(rank=3).attach(dense, seed=0)
    assert trained(module) == total - 2 * (4 * (256 - 3 * 32 - 16) + 3 * (384 - 3 * 40 - 16))
    assert names <= {name for name, p in module.named_parameters() if p.requires_grad}


def test_contract() -> None:
    check_adapter(SparseSpectral(rank=4, period=2, warmup=1), lambda: LLAMA.build(0).module, IDS, logits_of)
    inputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    spec = SparseSpectral(rank=2, period=1, warmup=0)
    check_adapter(spec, lambda: Mlp(5, 3, hidden=(8,)).build(0).module, inputs, lambda module, x: module(x))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank and period must be >= 1, found 0 and 200"),
        ({"period": 0}, "rank and period must be >= 1, found 64 and 0"),
        ({"warmup": 201}, "warmup must lie between 0 and period, found 201 and 200"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseSpectral(**fields)
