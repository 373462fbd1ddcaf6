"""Low-rank pre-training: balanced factors of the same product, a fresh optimizer state, and a learning rate that recovers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_language import IDS, LLAMA, logits_of, trained
from torch import nn

from outlay.adapters import LowRank
from outlay.adapters.base import Moment
from outlay.adapters.low_rank import TwoFactors
from outlay.models import Mlp
from outlay.testing import check_adapter


def layer(outputs: int = 9, inputs: int = 7, rank: int = 3, scale: float = 1.5) -> TwoFactors:
    return TwoFactors(nn.Linear(inputs, outputs, dtype=torch.float64), rank, scale, torch.Generator().manual_seed(0))


def test_the_start_by_the_formula() -> None:
    made = layer(80, 60, 40)
    for factor, bound in ((made.a, 60**-0.5), (made.b, 40**-0.5)):
        assert 0.98 * bound < float(factor.detach().abs().max()) <= bound
        assert abs(float(factor.detach().var()) / (bound**2 / 3) - 1) < 0.1
    assert torch.allclose(made.effective(), 1.5 * made.b @ made.a)
    attached = LowRank(rank=4, alpha=6.0).attach(nn.Sequential(nn.Linear(9, 8)), seed=0)
    part = next(part for part in attached.modules() if isinstance(part, TwoFactors))
    assert torch.allclose(part.weight, 1.5 * part.b @ part.a)


@pytest.mark.parametrize(("outputs", "inputs"), [(9, 7), (7, 9), (3, 8)])
def test_refactorising_keeps_the_product_and_balances_the_factors(outputs: int, inputs: int) -> None:
    made = layer(outputs, inputs)
    made.b.data *= 10
    made.a.data /= 10
    before = made.effective().detach()
    held = [id(factor) for factor in made.factors()]
    made.refactorise()
    assert [id(factor) for factor in made.factors()] == held
    assert torch.allclose(made.effective(), before, atol=1e-10)
    singular = torch.linalg.svdvals(before / 1.5)[:3]
    assert torch.allclose(made.b.T @ made.b, torch.diag(singular), atol=1e-10)
    assert torch.allclose(made.a @ made.a.T, torch.diag(singular), atol=1e-10)


def drive(
    spec: LowRank, module: nn.Module, steps: int, optimizer: torch.optim.Optimizer, first: int = 1
) -> list[list[dict[str, torch.Tensor]]]:
    """Train on a fixed task; return A, B and what the optimizer knows of them before and after every update's ``after``."""
    draw = torch.Generator().manual_seed(3)
    x, y = torch.randn(20, 7, generator=draw, dtype=torch.float64), torch.randn(20, 9, generator=draw, dtype=torch.float64)
    made = next(part for part in module.modules() if isinstance(part, TwoFactors))
    seen = []
    for step in range(first, first + steps):
        moment = Moment(step, 0.0)
        spec.before(module, moment)
        start = {"a": made.a.detach().clone(), "b": made.b.detach().clone()}
        optimizer.zero_grad()
        (module(x) - y).square().mean().backward()
        optimizer.step()
        stepped = {"a": made.a.detach().clone(), "b": made.b.detach().clone()}
        spec.after(module, optimizer, moment)
        seen.append([start, stepped, {"a": made.a.detach().clone(), "b": made.b.detach().clone()}])
    return seen


def model(spec: LowRank) -> nn.Module:
    plain = nn.Linear(7, 9, dtype=torch.float64)
    nn.init.zeros_(plain.bias)
    return spec.attach(nn.Sequential(plain), seed=0)


def test_after_a_restart_updates_recover_linearly() -> None:
    spec = LowRank(rank=3, alpha=3.0, period=6, recovery=4)
    module = model(spec)
    seen = drive(spec, module, 14, torch.optim.AdamW(module.parameters(), lr=0.01))
    recovering = [0.001, 0.25075, 0.5005, 0.75025, 1.0, 1.0]
    shares = [*[1.0] * 5, None, *recovering[:5], None, *recovering[:2]]
    for number, share in enumerate(shares):
        start, stepped, end = seen[number]
        for name in ("a", "b"):
            if share is not None:  # the update before a restart is followed by new factors
                expected = start[name] + share * (stepped[name] - start[name])
                assert torch.allclose(end[name], expected, rtol=1e-12, atol=1e-15)
            else:
                assert not torch.allclose(end[name], stepped[name], rtol=1e-3)
                assert torch.allclose(end["b"] @ end["a"], stepped["b"] @ stepped["a"], atol=1e-10)


def test_a_recovering_update_is_an_update_at_a_lower_learning_rate() -> None:
    """With the weight decay of AdamW too."""
    spec = LowRank(rank=3, alpha=3.0, period=2, recovery=1)
    one, other = model(spec), model(spec)
    ours = torch.optim.AdamW(one.parameters(), lr=0.1, weight_decay=0.3)
    theirs = torch.optim.AdamW(other.parameters(), lr=0.1, weight_decay=0.3)
    drive(spec, one, 2, ours)
    drive(spec, other, 2, theirs)
    drive(spec, one, 1, ours, first=3)
    theirs.param_groups[0]["lr"] = 0.1 * 0.001
    drive(LowRank(rank=3, alpha=3.0, period=None), other, 1, theirs, first=3)
    a, b = next(p for p in one.modules() if isinstance(p, TwoFactors)), next(p for p in other.modules() if isinstance(p, TwoFactors))
    assert torch.allclose(a.a, b.a, rtol=1e-10)
    assert torch.allclose(a.b, b.b, rtol=1e-10)


def test_after_a_restart_the_moments_are_those_of_a_fresh_optimizer_and_the_bias_keeps_its_own() -> None:
    spec = LowRank(rank=3, alpha=3.0, period=3, recovery=0)
    module = model(spec)
    made = next(part for part in module.modules() if isinstance(part, TwoFactors))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    drive(spec, module, 3, optimizer)
    assert made.a not in optimizer.state
    assert made.b not in optimizer.state
    assert made.bias is not None
    assert float(optimizer.state[made.bias]["step"]) == 3
    drive(spec, module, 1, optimizer, first=4)
    for factor in made.factors():
        assert factor.grad is not None
        assert float(optimizer.state[factor]["step"]) == 1
        assert torch.allclose(optimizer.state[factor]["exp_avg"], 0.1 * factor.grad)
        assert torch.allclose(optimizer.state[factor]["exp_avg_sq"], 0.001 * factor.grad**2)


def test_unbalanced_factors_learn_faster_when_they_are_refactorised() -> None:
    """B ten times as large and A a tenth, by gradient descent at a rate that the large factor bears: balance helps."""

    def end(period: int | None) -> float:
        spec = LowRank(rank=3, alpha=3.0, period=period, recovery=0)
        module = model(spec)
        made = next(part for part in module.modules() if isinstance(part, TwoFactors))
        made.b.data *= 10
        made.a.data /= 10
        draw = torch.Generator().manual_seed(5)
        x = torch.randn(64, 7, generator=draw, dtype=torch.float64)
        y = x @ (torch.randn(7, 3, generator=draw, dtype=torch.float64) @ torch.randn(3, 9, generator=draw, dtype=torch.float64))
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.0)
        for step in range(1, 101):
            optimizer.zero_grad()
            (module(x) - y).square().mean().backward()
            optimizer.step()
            spec.after(module, optimizer, Moment(step, 0.0))
        with torch.no_grad():
            return float((module(x) - y).square().mean())

    assert end(10) < 0.8 * end(None)


def test_without_a_period_nothing_is_touched() -> None:
    spec = LowRank(rank=3, period=None)
    module = model(spec)
    for start, stepped, end in drive(spec, module, 5, torch.optim.AdamW(module.parameters(), lr=0.01)):
        assert torch.equal(end["a"], stepped["a"])
        assert not torch.equal(start["a"], stepped["a"])


def test_trained_parameters_by_the_formula_and_all_else_stays_dense() -> None:
    dense = LLAMA.build(0).module
    names, total = {name for name, _ in dense.named_parameters() if "_proj" not in name}, trained(dense)
    module = LowRank(rank=5).attach(dense, seed=0)
    assert trained(module) == total - 2 * (4 * (256 - 5 * 32) + 3 * (384 - 5 * 40))
    assert names <= {name for name, p in module.named_parameters() if p.requires_grad}
    narrow = LowRank(rank=5).attach(nn.Sequential(nn.Linear(3, 8)), seed=0)
    assert narrow.get_parameter("0.a").shape == (3, 3)


def test_contract() -> None:
    spec = LowRank(rank=2, alpha=2.0, period=3, recovery=2)
    check_adapter(spec, lambda: LLAMA.build(0).module, IDS, logits_of, starts_there=False)
    inputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    check_adapter(spec, lambda: Mlp(5, 3, hidden=(8,)).build(0).module, inputs, lambda module, x: module(x), starts_there=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank must be >= 1 and alpha > 0, found 0 and 32"),
        ({"alpha": -1.0}, "rank must be >= 1 and alpha > 0, found 128 and -1"),
        ({"period": 0, "recovery": 0}, "period must be >= 1 or None, found 0"),
        ({"period": 10}, "recovery must be >= 0 and below period, found 10 and 10"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LowRank(**fields)
