"""The contracts of inner rules and residual rules, the parts of subspace optimizers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch

from outlay.inner_rules.base import Clears, Direction, InnerRule, Rotates
from outlay.layout import Layout, Slots
from outlay.residuals.base import Residual, Split
from outlay.rng import torch_generator
from outlay.testing.common import global_generators_untouched, hold, same

Kept = dict[str, torch.Tensor]
_TYPES = (torch.float32, torch.bfloat16)
_STEPS = 5


def check_residual(residual: Residual, shape: tuple[int, int] = (6, 4), rank: int = 2) -> None:
    """Check the seam of residual rules: state as laid out that carries everything, inputs left alone, an update of its own, determinism.

    Args:
        residual: what is checked.
        shape: of the matrix, (rows, columns).
        rank: of the projection that it is tried with, below the number of columns.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    name = type(residual).__name__
    with global_generators_untouched(name):
        for kind in _TYPES:
            driver = _Residuals(residual, shape, rank, kind)
            told = f"{name} in {kind}"
            state = _filled(residual.layout(shape), kind)
            for step in range(_STEPS):
                update = driver.step(residual, state, step, told)
                _hold_layout(residual.layout(shape), state, kind, told)
                hold(tuple(update.shape) == shape, "an update has the matrix's shape", f"{told} returned {tuple(update.shape)}")
                hold(update.dtype == kind, "an update has the gradient's type", f"{told} returned {update.dtype}")
            _check_residual_continued(residual, driver, told)
            _check_residual_zero(residual, driver, told)


class _Residuals:
    """Drives a rule with gradients, projections and directions from named streams."""

    def __init__(self, residual: Residual, shape: tuple[int, int], rank: int, kind: torch.dtype) -> None:
        self.shape, self.rank, self.kind = shape, rank, kind
        draw = torch_generator(0, "contracts/subspace")
        self.rows = torch.linalg.qr(torch.randn(shape[1], rank, generator=draw))[0].T.contiguous().to(kind)

    def step(self, rule: Residual, state: Kept, number: int, told: str, share: float = 1.0) -> torch.Tensor:
        """Return the update for gradient ``number`` times ``share``, after holding that nothing given was written to."""
        draw = torch_generator(0, "contracts/gradients", number)
        g = (share * torch.randn(self.shape, generator=draw)).to(self.kind)
        given = g.clone()
        prepared = rule.prepare(state, g)
        hold(torch.equal(g, given), "the gradient is not written to", f"{told} changed it in prepare")
        hold(prepared.shape == g.shape and prepared.dtype == g.dtype, "prepare returns a gradient of the same shape and type", told)
        small = prepared @ self.rows.T
        raw = (share * torch.randn(small.shape, generator=draw)).to(self.kind)
        split = Split(prepared, small, Direction(raw, 0.5), lambda r: r @ self.rows)
        before = [each.clone() for each in (g, prepared, small)]
        update = rule.update(state, split)
        for what, was, now in zip(("gradient", "prepared gradient", "coordinates"), before, (g, prepared, small), strict=True):
            hold(torch.equal(was, now), f"the {what} is not written to", f"{told} changed it in update")
        others = {"gradient": g, "prepared gradient": prepared, "coordinates": small, "direction": raw} | state
        _hold_own("an update is a tensor of its own", update, others, told)
        return update


def _check_residual_continued(residual: Residual, driver: _Residuals, told: str) -> None:
    one, other = copy.deepcopy(residual), copy.deepcopy(residual)
    state, again = (_filled(residual.layout(driver.shape), driver.kind) for _ in range(2))
    for step in range(3):
        first, second = driver.step(one, state, step, told), driver.step(other, again, step, told)
        hold(
            torch.equal(first, second) and same(state, again),
            "the same is done with the same, bit by bit",
            f"{told} differs in step {step}",
        )
    resumed, saved = copy.deepcopy(residual), {key: value.clone() for key, value in state.items()}
    for step in range(3, _STEPS):
        goes, came = driver.step(one, state, step, told), driver.step(resumed, saved, step, told)
        hold(torch.equal(goes, came), "the state carries everything", f"{told} resumed by its state differs in step {step}")


def _check_residual_zero(residual: Residual, driver: _Residuals, told: str) -> None:
    state = _filled(residual.layout(driver.shape), driver.kind)
    update = driver.step(residual, state, 0, told, share=0.0)
    hold(not bool(update.any()), "no gradient and no direction give no update", f"{told} returned {update.abs().max()}, or no number")
    for step in range(1, 3):
        update = driver.step(residual, state, step, told)
        hold(bool(update.isfinite().all()), "updates after a gradient of zero are finite", f"{told} returned {update}")


def check_inner_rule(rule: InnerRule, shape: tuple[int, int] = (6, 4), tolerance: float = 1e-5) -> None:
    """Check the seam of inner rules: state as laid out that carries everything, gradients left alone, directions of their own, determinism; of
    elementwise rules that they commute with slices and transposition; of rules that rotate and clear, what these leave.

    Args:
        rule: what is checked.
        shape: of the gradients.
        tolerance: relative difference allowed between an elementwise rule on a whole tensor and on parts of it; larger for moments in few bits.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    name = type(rule).__name__
    with global_generators_untouched(name):
        for kind in _TYPES:
            told = f"{name} in {kind}"
            for each in (shape, (shape[0],), (2, *shape), ()) if rule.elementwise else (shape,):
                state = _filled(rule.layout(each), kind)
                for step in range(_STEPS):
                    _direct(rule, state, _gradient(each, kind, step), step + 1, told)
                    _hold_layout(rule.layout(each), state, kind, told)
            _check_rule_continued(rule, shape, kind, told)
            _check_rule_zero(rule, shape, kind, told)
        if rule.elementwise:
            _check_elementwise(rule, shape, tolerance, name)
        if isinstance(rule, Rotates):
            _check_rotates(rule, shape, tolerance, name)
        if isinstance(rule, Clears):
            state = _driven(rule, shape, name)
            rule.clear(state)
            _hold_layout(rule.layout(shape), state, torch.float32, f"{name} after clear")
            _direct(rule, state, _gradient(shape, torch.float32, _STEPS), _STEPS + 1, f"{name} after clear")


def _direct(rule: InnerRule, state: Kept, g: torch.Tensor, step: int, told: str) -> Direction:
    """Return the direction, after holding what holds of every one."""
    given = g.clone()
    direction = rule.direction(state, g, step)
    hold(torch.equal(g, given), "the gradient is not written to", f"{told} changed it in step {step}")
    raw = direction.raw
    hold(
        raw.shape == g.shape and raw.dtype == g.dtype, "a direction has the gradient's shape and type", f"{told}: {raw.shape}, {raw.dtype}"
    )
    _hold_own("a direction is a tensor of its own", raw, {"gradient": g} | state, told)
    factor = direction.factor
    hold(0 < factor < float("inf"), "a factor is a positive number", f"{told} returned {factor} in step {step}")
    hold(bool(raw.isfinite().all()), "directions of finite gradients are finite", f"{told} returned {raw} in step {step}")
    return direction


def _check_rule_continued(rule: InnerRule, shape: tuple[int, int], kind: torch.dtype, told: str) -> None:
    one, other = copy.deepcopy(rule), copy.deepcopy(rule)
    state, again = (_filled(rule.layout(shape), kind) for _ in range(2))
    for step in range(1, 4):
        g = _gradient(shape, kind, step)
        first, second = _direct(one, state, g, step, told), _direct(other, again, g, step, told)
        alike = torch.equal(first.raw, second.raw) and first.factor == second.factor and same(state, again)
        hold(alike, "the same is done with the same, bit by bit", f"{told} differs in step {step}")
    resumed, saved = copy.deepcopy(rule), {key: value.clone() for key, value in state.items()}
    for step in range(4, _STEPS + 2):
        g = _gradient(shape, kind, step)
        goes, came = _direct(one, state, g, step, told), _direct(resumed, saved, g, step, told)
        alike = torch.equal(goes.raw, came.raw) and goes.factor == came.factor
        hold(alike, "the state carries everything", f"{told} resumed by its state differs in step {step}")


def _check_rule_zero(rule: InnerRule, shape: tuple[int, int], kind: torch.dtype, told: str) -> None:
    state = _filled(rule.layout(shape), kind)
    raw = _direct(rule, state, torch.zeros(shape, dtype=kind), 1, told).raw
    hold(not bool(raw.any()), "a first gradient of zero gives no direction", f"{told} returned {raw}")
    _direct(rule, state, _gradient(shape, kind, 0), 2, f"{told} after a gradient of zero")


def _check_elementwise(rule: InnerRule, shape: tuple[int, int], tolerance: float, name: str) -> None:
    half = shape[0] // 2
    views = {
        "a slice": (lambda x: x[:half], (half, shape[1])),
        "the transpose": (lambda x: x.T, (shape[1], shape[0])),
    }
    for what, (view, smaller) in views.items():
        whole, part = _filled(rule.layout(shape), torch.float32), _filled(rule.layout(smaller), torch.float32)
        for step in range(1, _STEPS + 1):
            g = _gradient(shape, torch.float32, step)
            one, other = _direct(rule, whole, g, step, name), _direct(rule, part, view(g), step, name)
            wrong = _apart(view(one.raw) * one.factor, other.raw * other.factor)
            hold(wrong <= tolerance, f"an elementwise rule does the same with {what}", f"{name} differs by {wrong} in step {step}")


def _check_rotates(rule: Rotates, shape: tuple[int, int], tolerance: float, name: str) -> None:
    """A new order of the coordinates with new signs is a rotation in which every elementwise rule must go on as it was."""
    assert isinstance(rule, InnerRule)
    rank = shape[1]
    signs = torch.tensor([(-1.0) ** i for i in range(rank)])
    turn = torch.eye(rank).roll(1, 0) * signs
    state = _driven(rule, shape, name)
    turned = {key: value.clone() for key, value in state.items()}
    rule.rotate(turned, turn, shape)
    _hold_layout(rule.layout(shape), turned, torch.float32, f"{name} after rotate")
    if rule.elementwise:
        g = _gradient(shape, torch.float32, _STEPS)
        one, other = _direct(rule, state, g, _STEPS + 1, name), _direct(rule, turned, g @ turn, _STEPS + 1, name)
        wrong = _apart(one.raw @ turn, other.raw)
        hold(wrong <= tolerance, "what is rotated goes on in the new coordinates as it would in the old", f"{name} differs by {wrong}")


# ---- what both share -----------------------------------------------------------------------------------------------------------------


def _gradient(shape: Sequence[int], kind: torch.dtype, number: int) -> torch.Tensor:
    return torch.randn(tuple(shape), generator=torch_generator(0, "contracts/gradients", number)).to(kind)


def _driven(rule: InnerRule, shape: tuple[int, int], told: str) -> Kept:
    state = _filled(rule.layout(shape), torch.float32)
    for step in range(_STEPS):
        _direct(rule, state, _gradient(shape, torch.float32, step), step + 1, told)
    return state


def _filled(layout: Layout, kind: torch.dtype) -> Kept:
    state: Kept = {}
    Slots(state, "").fill(layout, torch.zeros((), dtype=kind))
    return state


def _hold_layout(layout: Layout, state: Mapping[str, torch.Tensor], kind: torch.dtype, told: str) -> None:
    stated = {name: (tuple(slot.shape), slot.dtype or kind) for name, slot in layout.items()}
    found = {name: (tuple(value.shape), value.dtype) for name, value in state.items()}
    hold(stated == found, "the state is what the layout says", f"{told} keeps {found} and states {stated}")


def _hold_own(rule: str, made: torch.Tensor, others: Mapping[str, torch.Tensor], told: str) -> None:
    where = made.untyped_storage().data_ptr()
    shared = [what for what, other in others.items() if other.numel() and other.untyped_storage().data_ptr() == where]
    hold(not shared, rule, f"what {told} returned shares memory with {', '.join(shared)}")


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm().clamp_min(1e-30))
