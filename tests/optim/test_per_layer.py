"""Per-layer updates: the same weights as the optimizer alone, with no two gradients alive."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from outlay.optim import AdamW, GaLore, PerLayer, Prodigy, Sgd, follow
from outlay.optim.base import OptimizerSpec, StepsInBackward
from outlay.testing import check_optimizer


def network() -> nn.Sequential:
    draw = torch.Generator().manual_seed(0)
    made = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    for parameter in made.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
    return made


def data(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(16, 5, generator=draw), torch.randn(16, 3, generator=draw)


def trained(spec: OptimizerSpec, steps: int = 6) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    module = network()
    optimizer = spec.build(list(module.named_parameters()))
    for step in range(steps):
        follow(optimizer, "lr", 0.02 / (step + 1))
        inputs, targets = data(step)
        loss = (module(inputs) - targets).square().mean()
        if isinstance(optimizer, StepsInBackward):
            with optimizer.armed():
                loss.backward()
            assert all(p.grad is None for p in module.parameters())
        else:
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return module, optimizer


@pytest.mark.parametrize("spec", [AdamW(), Sgd(), GaLore(rank=2, period=2)])
def test_weights_are_those_of_the_optimizer_alone(spec: OptimizerSpec) -> None:
    plain, layered = trained(spec)[0], trained(PerLayer(spec))[0]
    for one, other in zip(plain.parameters(), layered.parameters(), strict=True):
        assert torch.equal(one, other)


def test_no_two_gradients_are_alive() -> None:
    module = network()
    optimizer = PerLayer(AdamW()).build(list(module.named_parameters()))
    assert isinstance(optimizer, StepsInBackward)
    seen: list[int] = []
    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(lambda _: seen.append(sum(p.grad is not None for p in module.parameters())))
    inputs, targets = data(0)
    with optimizer.armed():
        (module(inputs) - targets).square().mean().backward()
    # these hooks run after the step was taken and the gradient freed
    assert seen == [0] * 6


def test_the_norm_is_that_of_the_whole_gradient_and_unarmed_passes_change_nothing() -> None:
    module, twin = network(), network()
    optimizer = PerLayer(Sgd(), clip=0.05).build(list(module.named_parameters()))
    assert isinstance(optimizer, StepsInBackward)
    follow(optimizer, "lr", 0.1)
    follow(optimizer, "momentum", 0.0)
    inputs, targets = data(0)
    (module(inputs) - targets).square().mean().backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), twin.parameters(), strict=True))
    whole = float(torch.stack([g.norm() for g in gradients]).norm())
    optimizer.zero_grad()
    with optimizer.armed():
        (module(inputs) - targets).square().mean().backward()
    assert optimizer.gradient_norm() == pytest.approx(whole, rel=1e-6)
    for now, before, gradient in zip(module.parameters(), twin.parameters(), gradients, strict=True):
        step = before.detach() - 0.1 * gradient * min(1.0, 0.05 / float(gradient.norm()))
        assert torch.allclose(now.detach(), step, atol=1e-7)


def test_a_tensor_whose_gradient_is_not_finite_stays() -> None:
    module, twin = network(), network()
    optimizer = PerLayer(Sgd()).build(list(module.named_parameters()))
    assert isinstance(optimizer, StepsInBackward)
    next(module.parameters()).register_hook(lambda g: g * torch.inf)
    inputs, targets = data(0)
    with optimizer.armed():
        (module(inputs) - targets).square().mean().backward()
    moved = [not torch.equal(a, b) for a, b in zip(module.parameters(), twin.parameters(), strict=True)]
    assert moved == [False, True, True, True, True, True]
    assert not torch.isfinite(torch.tensor(optimizer.gradient_norm()))


def test_what_shares_quantities_is_refused() -> None:
    with pytest.raises(ValueError, match="those of Prodigy share quantities"):
        PerLayer(Prodigy())
    with pytest.raises(ValueError, match="clip must be > 0"):
        PerLayer(clip=0.0)


def test_bytes_of_gradients() -> None:
    assert PerLayer().gradient_bytes({"a": (3, 4), "b": (5,)}) == 48
    assert PerLayer().state_bytes({"a": (3, 4)}) == AdamW().state_bytes({"a": (3, 4)})


def test_contract() -> None:
    check_optimizer(PerLayer(GaLore(rank=2, period=2)))
    check_optimizer(PerLayer(AdamW(fused=False)))
