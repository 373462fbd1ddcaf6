"""The contract of adapters."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import torch
from torch import nn

from outlay.adapters.base import Adapter, Follows, Moment, Penalises, Primes
from outlay.rng import torch_generator
from outlay.testing.common import global_generators_untouched, hold, same

#: what a module computes of an input, and the loss of its output
Forward = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def check_adapter(
    spec: Adapter, build: Callable[[], nn.Module], inputs: torch.Tensor, forward: Forward, starts_there: bool = True, steps: int = 8
) -> None:
    """Check the adapter seam: the seed alone decides, what is trained is laid out by rows, merging keeps the function, and a saved state is
    all there is.

    Args:
        spec: what is checked.
        build: returns the model, the same each time.
        inputs: a batch that the model takes, (examples, ...).
        forward: what the model computes of a batch, (examples, ...).
        starts_there: whether the adapted model computes at first what the model computed; not so for adapters that draw weights anew.
        steps: updates that are driven.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    name = type(spec).__name__
    before = forward(build().eval(), inputs).detach()
    with global_generators_untouched(name):
        one, other = spec.attach(build(), 3), spec.attach(build(), 3)
        hold(same(one.state_dict(), other.state_dict()), "the same seed gives the same adapter", f"{name} attached twice differs")
        _check_trained(name, one)
        _prime(spec, one, inputs, forward)
        _check_trained(name, one)
        if starts_there:
            there = forward(one.eval(), inputs).detach()
            hold(
                torch.allclose(there, before, atol=1e-5), "the adapted model starts as the model", f"{name} is off by {_off(there, before)}"
            )
        _check_merge(spec, one, inputs, forward, "at the start")
        frozen = {key: p.detach().clone() for key, p in one.named_parameters() if not p.requires_grad}
        optimizer = _optimizer(one)
        _drive(spec, one, optimizer, inputs, forward, 1, steps)
        moved = [key for key, p in one.named_parameters() if key in frozen and not p.requires_grad and not torch.equal(p, frozen[key])]
        hold(not moved, "what requires no gradient is not changed by the optimizer", f"{name} moved {', '.join(moved[:3])}")
        _check_merge(spec, one, inputs, forward, f"after {steps} updates")
        _check_continued(spec, build, inputs, forward, steps)


def _check_trained(name: str, adapted: nn.Module) -> None:
    trained = [p for p in adapted.parameters() if p.requires_grad]
    hold(bool(trained), "an adapter trains something", f"{name} leaves no parameter that requires a gradient")
    # moments come back from a checkpoint laid out by rows, and fused optimizers read them beside the parameter as both lie in memory
    odd = [key for key, p in adapted.named_parameters() if p.requires_grad and not p.is_contiguous()]
    hold(not odd, "trained parameters are contiguous", f"{name} trains {', '.join(odd[:3])}")


def _prime(spec: Adapter, module: nn.Module, inputs: torch.Tensor, forward: Forward) -> None:
    if not isinstance(spec, Primes):
        return
    flags = {key: p.requires_grad for key, p in module.named_parameters()}
    spec.prime(module, lambda number: _loss(forward(module, inputs[number % len(inputs) :][:1])), 3)
    after = {key: p.requires_grad for key, p in module.named_parameters()}
    hold(flags == after, "priming leaves what requires gradients as it was", f"{type(spec).__name__} changed it")
    hold(all(p.grad is None for p in module.parameters()), "priming leaves no gradients", f"{type(spec).__name__} left some")


def _loss(output: torch.Tensor) -> torch.Tensor:
    target = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    return (output - target).square().mean()


def _optimizer(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)


def _drive(
    spec: Adapter, module: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, forward: Forward, first: int, last: int
) -> None:
    module.train()
    for step in range(first, last + 1):
        rows = torch.randperm(len(inputs), generator=torch_generator(0, "contracts/rows", step))[: max(1, len(inputs) // 2)]
        moment = Moment(step, (step - 1) / 8, 3)
        if isinstance(spec, Follows):
            spec.before(module, moment)
        loss = _loss(forward(module, inputs[rows]))
        (loss + spec.penalty(module) if isinstance(spec, Penalises) else loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if isinstance(spec, Follows):
            spec.after(module, optimizer, moment)
        optimizer.zero_grad(set_to_none=True)


def _check_merge(spec: Adapter, module: nn.Module, inputs: torch.Tensor, forward: Forward, when: str) -> None:
    adapted = forward(module.eval(), inputs).detach()
    merged = spec.merge(copy.deepcopy(module)).eval()
    there = forward(merged, inputs).detach()
    close = torch.allclose(there, adapted, atol=1e-4, rtol=1e-4)
    hold(close, "merging keeps what is computed", f"{type(spec).__name__} {when} is off by {_off(there, adapted)}")


def _check_continued(spec: Adapter, build: Callable[[], nn.Module], inputs: torch.Tensor, forward: Forward, steps: int) -> None:
    module = spec.attach(build(), 3)
    _prime(spec, module, inputs, forward)
    optimizer, half = _optimizer(module), steps // 2
    _drive(spec, module, optimizer, inputs, forward, 1, half)
    file = io.BytesIO()
    torch.save({"module": module.state_dict(), "optimizer": optimizer.state_dict()}, file)
    kept = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    twin = spec.attach(build(), 3)
    twin.load_state_dict(kept["module"])
    resumed = _optimizer(twin)
    resumed.load_state_dict(kept["optimizer"])
    _drive(spec, module, optimizer, inputs, forward, half + 1, steps)
    _drive(spec, twin, resumed, inputs, forward, half + 1, steps)
    equal = same(module.state_dict(), twin.state_dict())
    hold(equal, "going on from a saved state equals never having stopped, bit by bit", f"{type(spec).__name__} differs")


def _off(one: torch.Tensor, other: torch.Tensor) -> str:
    return f"{float((one - other).abs().max()):.2g}"
