"""The contract of optimizers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from outlay.optim.base import SCALES, Explores, OptimizerSpec, follow
from outlay.rng import torch_generator
from outlay.testing.common import global_generators_untouched, hold


def check_optimizer(spec: OptimizerSpec, shapes: Sequence[Sequence[int]] = ((4, 3), (3,), (3, 5), (2, 3, 2), ()), steps: int = 1) -> None:
    """Check the optimizer seam: state of the stated weight, knobs that are group fields and act, and bitwise continuation.

    Args:
        spec: what is checked.
        shapes: of the parameters; a matrix and a vector at least.
        steps: after how many steps the state has been at its largest.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    name = type(spec).__name__
    with global_generators_untouched(name):
        for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
            parameters = _parameters(shapes, dtype)
            optimizer = spec.build(parameters)
            measured = 0
            for step in range(steps):
                _drive(optimizer, parameters, 1, step)
                measured = max(measured, _bytes(optimizer.state) + _bytes(getattr(optimizer, "tables", {})))
            stated = spec.state_bytes({one: tuple(p.shape) for one, p in parameters}, size)
            hold(measured == stated, "state_bytes is exact", f"{name} in {dtype} holds {measured} bytes at most and states {stated}")
        _check_groups(spec, shapes)
        _check_effects(spec, shapes)
        _check_continued(spec, shapes)


def _parameters(shapes: Sequence[Sequence[int]], dtype: torch.dtype = torch.float32) -> list[tuple[str, nn.Parameter]]:
    draw = torch_generator(0, "contracts/parameters")
    return [(f"p{i}.weight", nn.Parameter(torch.randn(tuple(shape), generator=draw).to(dtype))) for i, shape in enumerate(shapes)]


def _drive(optimizer: torch.optim.Optimizer, parameters: Sequence[tuple[str, nn.Parameter]], steps: int, start: int = 0) -> None:
    for number in range(start, start + steps):
        draw = torch_generator(0, "contracts/gradients", number)
        if isinstance(optimizer, Explores):
            wanted = [torch.randn(p.shape, generator=draw) for _, p in parameters]
            pairs = [(p, target) for (_, p), target in zip(parameters, wanted, strict=True)]
            optimizer.explore(lambda pairs=pairs: sum(float((p.float() - t).square().sum()) for p, t in pairs), lambda sent: [sent], 0)  # type: ignore[misc]
            continue
        for _, parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw).to(parameter.dtype)
        optimizer.step()


def _bytes(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        # not elements: a view keeps all of what it looks at alive
        return max(state.numel() * state.element_size(), state.untyped_storage().nbytes())
    if isinstance(state, Mapping):
        return sum(_bytes(value) for value in state.values())
    return sum(_bytes(value) for value in state) if isinstance(state, list | tuple) else 0


def _check_groups(spec: OptimizerSpec, shapes: Sequence[Sequence[int]]) -> None:
    parameters = _parameters(shapes)
    optimizer = spec.build(parameters)
    held = sorted(id(p) for group in optimizer.param_groups for p in group["params"])
    hold(held == sorted(id(p) for _, p in parameters), "every parameter is in one group", f"{len(held)} of {len(parameters)} are")
    for knob, default in spec.knobs.items():
        for group in optimizer.param_groups:
            factor = group.get(SCALES, {}).get(knob, 1.0)
            hold(knob in group, "a knob is a field of every group", f"{knob!r} is not among {sorted(map(str, group))}")
            hold(group[knob] == default * factor, "a knob stands at its default", f"{knob} is {group[knob]}, not {default} * {factor}")
        follow(optimizer, knob, 0.3)
        got = [group[knob] for group in optimizer.param_groups]
        want = [0.3 * group.get(SCALES, {}).get(knob, 1.0) for group in optimizer.param_groups]
        hold(got == want, "groups scale a knob by their own factor", f"{knob} followed to 0.3 is {got}, not {want}")
    before = [p.detach().clone() for _, p in parameters]
    if isinstance(optimizer, Explores):
        return
    optimizer.step()
    hold(_equal(before, parameters), "parameters without a gradient stay as they are", "one moved")


def _check_effects(spec: OptimizerSpec, shapes: Sequence[Sequence[int]]) -> None:
    def after(knobs: Mapping[str, float]) -> list[tuple[str, nn.Parameter]]:
        parameters = _parameters(shapes)
        optimizer = spec.build(parameters)
        for knob, value in knobs.items():
            follow(optimizer, knob, value)
        _drive(optimizer, parameters, 3)
        return parameters

    usual = [p.detach() for _, p in after({})]
    for knob, default in spec.knobs.items():
        other = default / 2 if default else 0.05
        hold(not _equal(usual, after({knob: other})), "a knob acts", f"{knob} at {other} instead of {default} changed nothing in 3 steps")
    if "lr" in spec.knobs:
        hold(_equal([p for _, p in _parameters(shapes)], after({"lr": 0.0})), "a learning rate of 0 changes no weight", "one moved")


def _check_continued(spec: OptimizerSpec, shapes: Sequence[Sequence[int]]) -> None:
    parameters = _parameters(shapes)
    optimizer = spec.build(parameters)
    _drive(optimizer, parameters, 2)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    twins = [(name, nn.Parameter(p.detach().clone())) for name, p in parameters]
    resumed = spec.build(twins)
    # weights_only: whatever is not a tensor or a plain value is refused
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    _drive(optimizer, parameters, 3, start=2)
    _drive(resumed, twins, 3, start=2)
    hold(_equal([p for _, p in parameters], twins), "going on from a saved state equals never having stopped, bit by bit", "weights differ")


def _equal(expected: Sequence[torch.Tensor], parameters: Sequence[tuple[str, nn.Parameter]]) -> bool:
    return all(torch.equal(one.detach(), other.detach()) for one, (_, other) in zip(expected, parameters, strict=True))
