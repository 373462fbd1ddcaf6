"""The contract of objectives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from outlay.objectives.base import Attaches, Binds, Objective, Prepares, Surveys
from outlay.rng import torch_generator
from outlay.sources.base import IGNORED, Batch
from outlay.testing.common import hold


def check_objective(
    objective: Objective,
    model: nn.Module,
    batch: Batch,
    tolerance: float = 1e-7,
    step: float = 1e-4,
    *,
    frozen: nn.Module | None = None,
    gradient_of: Callable[[nn.Module, Batch], torch.Tensor] | None = None,
    differences: bool = True,
) -> None:
    """Check the objective seam in double precision on a copy of the model in evaluation mode.

    A batch cut into pieces gives the same loss, measures and gradient; the gradient equals central differences; for text, padding changes
    nothing and exactly the positions before a labelled one are taught. What an objective asks for beside a model and a batch it gets: it is
    bound to a frozen model, attaches its part, prepares the batch, and surveys it before it is cut. One with ``whole_groups`` is cut between
    groups alone. A batch with rewards need not teach every labelled position, but teaches no other, and none of a row that was not judged.

    Args:
        objective: what is checked, not yet bound.
        model: small, as every parameter's gradient is formed several times.
        batch: two examples (with ``whole_groups`` two groups) or more; unlike lengths and partly masked labels make the check sharper.
        tolerance: largest error relative to the largest value; raise it for a model that computes inside in single precision.
        step: of the central differences.
        frozen: the model as it was when the stage began; None for a copy with slightly other weights.
        gradient_of: for a loss that holds parts of itself fixed, the function of model and prepared batch whose gradient it has.
        differences: whether the gradient is compared with central differences at all.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    model = copy.deepcopy(model).double().eval()
    batch = {name: column.double() if column.is_floating_point() else column for name, column in batch.items()}
    rows = len(next(iter(batch.values())))
    hold(rows > 1, "the check needs a batch of two examples or more", f"found {rows}")
    if isinstance(objective, Binds):
        start = _elsewhere(model) if frozen is None else copy.deepcopy(frozen).double().eval().requires_grad_(False)
        objective = objective.bind(lambda: start)
    if isinstance(objective, Attaches):
        model.attached = objective.attach(model, 0).double().eval()
    raw, batch = batch, _prepared(objective, model, batch)
    if isinstance(objective, Prepares):
        again = _prepared(objective, model, batch)
        same = again.keys() == batch.keys() and all(torch.equal(again[name], column) for name, column in batch.items())
        hold(same, "preparing a prepared batch gives the same", f"{type(objective).__name__} changed {_changed(batch, again)}")
    whole = _Taught.of(objective, model, batch)
    plain = objective(model, batch, dict(objective.knobs))[0].detach()
    hold(_near(plain, whole.loss, tolerance), "knobs that are not given stand at their defaults", f"{plain} is not {whole.loss}")
    hold(
        whole.weight > 0 and any(bool(g.any()) for g in whole.gradient),
        "the batch teaches something",
        f"weight {whole.weight}, no gradient",
    )
    surveyed = batch
    if isinstance(objective, Surveys):
        with torch.no_grad():
            surveyed = objective.survey(model, batch, dict(objective.knobs))
    sizes = _sizes(objective, batch)
    hold(len(sizes) > 1, "the check needs a batch that can be cut", f"found {len(sizes)} piece after it was prepared")
    for cuts in ([sizes[0], sum(sizes[1:])], sizes):
        parts = [_Taught.of(objective, model, _cut(surveyed, sum(cuts[:i]), size)) for i, size in enumerate(cuts)]
        mean = _Taught.mean([part for part in parts if part.weight])
        whole.must_equal(mean, "pieces of a batch, averaged by weight, equal the whole", f"cut into {cuts}", tolerance)
    if {"input_ids", "attention_mask", "labels"} <= batch.keys():
        for filler in (0, 1):
            padded = _Taught.of(objective, model, _prepared(objective, model, _padded(raw, filler)))
            whole.must_equal(padded, "padding teaches nothing", f"3 more positions padded with token {filler}", tolerance)
        _check_positions(objective, model, batch)
    if differences:
        _check_differences(objective, model, batch, whole, tolerance, step, gradient_of)


def _elsewhere(model: nn.Module) -> nn.Module:
    """Return a frozen copy whose weights are a tenth of their size away."""
    copied, draw = copy.deepcopy(model).requires_grad_(False), torch_generator(0, "contracts/frozen")
    for parameter in copied.parameters():
        parameter.add_(0.1 * parameter.abs().mean() * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype))
    return copied


def _prepared(objective: Objective, model: nn.Module, batch: Batch) -> Batch:
    if not isinstance(objective, Prepares):
        return batch
    with torch.no_grad():
        return objective.prepare(model, batch, dict(objective.knobs))


def _changed(one: Batch, other: Batch) -> str:
    names = [name for name in sorted(one.keys() | other.keys()) if name not in one or name not in other]
    names += [name for name in sorted(one.keys() & other.keys()) if not torch.equal(one[name], other[name])]
    return ", ".join(names)


def _sizes(objective: Objective, batch: Batch) -> list[int]:
    """Return how many rows each smallest piece has that a batch may be cut into."""
    if not getattr(objective, "whole_groups", False):
        return [1] * len(next(iter(batch.values())))
    return [int(size) for size in torch.unique_consecutive(batch["group"], return_counts=True)[1]]


@dataclass(frozen=True)
class _Taught:
    """What an objective makes of a batch."""

    weight: float
    loss: torch.Tensor
    measures: dict[str, torch.Tensor]
    gradient: list[torch.Tensor]

    @classmethod
    def of(cls, objective: Objective, model: nn.Module, batch: Batch) -> _Taught:
        loss, measures = objective(model, batch, {})
        hold(loss.dim() == 0 and loss.requires_grad, "the loss is a scalar with a gradient", f"found shape {tuple(loss.shape)}")
        for name, value in measures.items():
            hold(value.dim() == 0 and not value.requires_grad, "measures are scalars without a gradient", f"{name} is {value}")
        trained = [p for p in model.parameters() if p.requires_grad]
        gradient = torch.autograd.grad(loss, trained, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, gradient, strict=True)]
        return cls(objective.weight(batch), loss.detach(), dict(measures), filled)

    @classmethod
    def mean(cls, parts: Sequence[_Taught]) -> _Taught:
        total = sum(part.weight for part in parts)
        shares = [part.weight / total for part in parts]
        measures = {
            name: sum(s * part.measures[name].double() for s, part in zip(shares, parts, strict=True)) for name in parts[0].measures
        }
        gradient = [sum(s * g for s, g in zip(shares, same, strict=True)) for same in zip(*(part.gradient for part in parts), strict=True)]
        loss = sum(s * part.loss for s, part in zip(shares, parts, strict=True))
        return cls(total, loss, measures, gradient)  # type: ignore[arg-type]

    def must_equal(self, other: _Taught, rule: str, how: str, tolerance: float) -> None:
        hold(self.weight == other.weight, rule, f"{how}: the weight is {other.weight}, not {self.weight}")
        hold(_near(other.loss, self.loss, tolerance), rule, f"{how}: the loss is {float(other.loss)!r}, not {float(self.loss)!r}")
        for name, value in self.measures.items():
            # measures are shown, not followed: single precision is enough for them
            seen = f"{how}: {name} is {float(other.measures[name])!r}, not {float(value)!r}"
            hold(_near(other.measures[name], value, max(tolerance, 1e-6)), rule, seen)
        scale = max(float(g.abs().max()) for g in self.gradient if g.numel())
        error = max(float((a - b).abs().max()) for a, b in zip(self.gradient, other.gradient, strict=True) if a.numel())
        hold(error <= tolerance * scale, rule, f"{how}: the gradient is off by {error:.3g} where its largest entry is {scale:.3g}")


def _near(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    return abs(float(one) - float(other)) <= tolerance * max(1.0, abs(float(other)))


def _cut(batch: Batch, start: int, size: int) -> Batch:
    return {name: column[start : start + size] for name, column in batch.items()}


def _padded(batch: Batch, filler: int) -> Batch:
    fillers = {"input_ids": filler, "labels": IGNORED}
    shape = batch["input_ids"].shape
    wide = {}
    for name, column in batch.items():
        tail = torch.full((len(column), 3, *column.shape[2:]), fillers.get(name, 0), dtype=column.dtype)
        wide[name] = torch.cat([column, tail], dim=1) if column.shape[:2] == shape else column
    return wide


def _check_positions(objective: Objective, model: nn.Module, batch: Batch) -> None:
    seen: list[torch.Tensor] = []

    def keep(_: nn.Module, __: object, output: Any) -> None:
        logits = output if isinstance(output, torch.Tensor) else output.logits
        logits.retain_grad()
        seen.append(logits)

    handle = model.register_forward_hook(keep)
    loss, _ = objective(model, batch, {})
    handle.remove()
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    wanted = torch.zeros_like(batch["labels"], dtype=torch.bool)
    wanted[:, :-1] = batch["labels"][:, 1:] != IGNORED
    rewarded = "reward" in batch
    if "judged" in batch:
        wanted &= batch["judged"].bool()[:, None]
    for logits in seen:
        if logits.shape[:2] != wanted.shape:
            continue  # a score of whole sequences, or a pass over others
        taught = logits.grad.abs().sum(-1) > 0 if logits.grad is not None else torch.zeros_like(wanted)
        wrong = ((taught & ~wanted) if rewarded else (taught != wanted)).nonzero().tolist()
        hold(not wrong, "exactly the positions before a labelled token are taught", f"(example, position) {wrong[:5]} are not as labelled")


def _check_differences(
    objective: Objective,
    model: nn.Module,
    batch: Batch,
    whole: _Taught,
    tolerance: float,
    step: float,
    gradient_of: Callable[[nn.Module, Batch], torch.Tensor] | None,
) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    largest = sorted(range(len(trained)), key=lambda i: -float(whole.gradient[i].abs().max()))[:6]
    scale = max(float(whole.gradient[i].abs().max()) for i in largest)
    for i in largest:
        place = int(whole.gradient[i].abs().argmax())
        flat = trained[i].data.view(-1)
        sides = []
        for sign in (1, -1):
            flat[place] += sign * step
            value = objective(model, batch, {})[0] if gradient_of is None else gradient_of(model, batch)
            sides.append(float(value.detach()))
            flat[place] -= sign * step
        expected, found = (sides[0] - sides[1]) / (2 * step), float(whole.gradient[i].view(-1)[place])
        seen = f"parameter {i}, entry {place}: gradient {found!r}, difference quotient {expected!r}"
        hold(abs(expected - found) <= max(1e-6, 10 * tolerance) * scale, "the gradient is the loss's", seen)
