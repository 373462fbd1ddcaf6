"""Inner rules against torch and their formulas, and as parts of a subspace optimizer at its limits."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from outlay.formats import Bf16, Dynamic8
from outlay.inner_rules import Adafactor, Adam, InnerRule, Lion, Sgd, Sign
from outlay.inner_rules.base import Rotates
from outlay.layout import Slots
from outlay.optim import OptimizerSpec, Subspace, Whole, follow
from outlay.projectors import Svd
from outlay.residuals import Drop
from outlay.testing import check_inner_rule


def gradients(count: int, shape: tuple[int, ...] = (6, 4), seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for _ in range(count)]


def directions(rule: InnerRule, steps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    slots = Slots({}, "inner.")
    slots.fill(rule.layout(tuple(steps[0].shape)), steps[0])
    found = []
    for number, g in enumerate(steps, 1):
        before = g.clone()
        direction = rule.direction(slots, g, number)
        assert torch.equal(g, before), "a gradient is not written to"
        found.append(direction.raw * direction.factor)
    return found


def drive(spec: OptimizerSpec, start: torch.Tensor, steps: Sequence[torch.Tensor], lr: float = 0.1) -> torch.Tensor:
    w = nn.Parameter(start.clone())
    optimizer = spec.build([("w", w)])
    follow(optimizer, "lr", lr)
    for g in steps:
        w.grad = g.clone()
        optimizer.step()
    return w.detach()


START = gradients(1, seed=9)[0]


@pytest.mark.parametrize(
    ("rule", "tolerance"),
    [
        (Sgd(), 1e-5),
        (Sgd(0.9, nesterov=True), 1e-5),
        (Sgd(0.9, states=Dynamic8()), 0.1),
        (Sign(), 1e-5),
        (Sign(0.9), 1e-5),
        (Lion(), 1e-5),
        (Lion(states=Bf16()), 1e-5),
        (Adafactor(), 1e-5),
        (Adafactor(beta1=0.9), 1e-5),
        (Adam(states=Bf16(), rounding="stochastic"), 0.1),
        (Adam(states=Dynamic8(), second=Dynamic8(signed=False, positive=True)), 0.1),
    ],
    ids=str,
)
def test_contract(rule: InnerRule, tolerance: float) -> None:
    check_inner_rule(rule, tolerance=tolerance)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_gradient_descent_is_that_of_torch(momentum: float, nesterov: bool) -> None:
    steps, w = gradients(30), nn.Parameter(START.clone())
    peer = torch.optim.SGD([w], lr=0.1, momentum=momentum, nesterov=nesterov)
    for g in steps:
        w.grad = g.clone()
        peer.step()
    assert torch.allclose(drive(Whole(Sgd(momentum, nesterov)), START, steps), w.detach(), rtol=1e-12)


def test_signs_by_hand() -> None:
    steps = [torch.tensor([2.0, -0.1, 0.0]), torch.tensor([-1.0, -0.1, 0.0])]
    assert [d.tolist() for d in directions(Sign(), steps)] == [[1, -1, 0], [-1, -1, 0]]
    # m = 0.2, then 0.9 * 0.2 - 0.1 = 0.08: the sign stays
    assert [d.tolist() for d in directions(Sign(momentum=0.9), steps)] == [[1, -1, 0], [1, -1, 0]]
    assert Sign().layout((3,)) == {} and list(Sign(0.9).layout((3,))) == ["m"]


def test_lion_by_its_formula() -> None:
    steps = gradients(40, (5,))
    m, expected = torch.zeros(5, dtype=torch.float64), []
    for g in steps:
        expected.append((0.9 * m + 0.1 * g).sign())
        m = 0.99 * m + 0.01 * g
    found = directions(Lion(), steps)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    # the direction weighs the last gradient more than what is kept does
    assert any(not torch.equal(one, other) for one, other in zip(found, directions(Sign(momentum=0.99), steps), strict=True))


def test_with_all_directions_of_a_matrix_gradient_descent_is_itself_and_adam_is_not() -> None:
    """Gradient descent does not see a rotation; Adam does."""
    steps = gradients(25)
    for start, here in ((START, steps), (START.T.contiguous(), [g.T.contiguous() for g in steps])):
        for rule, period in ((Sgd(), 3), (Sgd(momentum=0.9), None)):
            projected = Subspace(Svd(rank=4), rule, Drop(1.0), period, names=())
            assert torch.allclose(drive(projected, start, here), drive(Whole(rule), start, here), rtol=1e-9, atol=1e-9)
        adam = Adam()
        rotated = drive(Subspace(Svd(rank=4), adam, Drop(1.0), 3, names=()), start, here)
        assert not torch.allclose(rotated, drive(Whole(adam), start, here), rtol=1e-2)


def test_momentum_kept_in_old_coordinates_is_not_gradient_descent_and_rotated_it_is() -> None:
    steps, rule = gradients(25), Sgd(momentum=0.9)
    assert isinstance(rule, Rotates)
    expected = drive(Whole(rule), START, steps)
    kept = Subspace(Svd(rank=4), rule, Drop(1.0), 5, "keep", names=())
    turned = Subspace(Svd(rank=4), rule, Drop(1.0), 5, "rotate", names=())
    assert not torch.allclose(drive(kept, START, steps), expected, rtol=1e-3)
    assert torch.allclose(drive(turned, START, steps), expected, rtol=1e-9)


@pytest.mark.parametrize("rule", [Sign(momentum=0.9), Lion(), Sgd(0.5)], ids=lambda rule: type(rule).__name__)
def test_a_mean_turns_as_gradients_do(rule: Sign | Lion | Sgd) -> None:
    steps = gradients(4)
    turn = torch.linalg.qr(gradients(1, (4, 4), seed=5)[0])[0]
    one, other = Slots({}, ""), Slots({}, "")
    for slots in (one, other):
        slots.fill(rule.layout((6, 4)), steps[0])
    for number, g in enumerate(steps, 1):
        rule.direction(one, g, number)
        rule.direction(other, g @ turn, number)
    rule.rotate(one, turn, (6, 4))
    (name,) = one
    assert torch.allclose(one[name], other[name], rtol=1e-9)


@pytest.mark.parametrize("states", [Bf16(), Dynamic8(block=16)], ids=["bf16", "dynamic8"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_states_in_a_format_follow_those_without(states: Bf16 | Dynamic8, momentum: float) -> None:
    steps = gradients(20, dtype=torch.float32)
    for rule, same in (
        (Sgd(momentum, states=states), Sgd(momentum)),
        (Adafactor(beta1=momentum, states=states), Adafactor(beta1=momentum)),
    ):
        for one, other in zip(directions(rule, steps), directions(same, steps), strict=True):
            assert float((one - other).norm() / other.norm()) < (0.03 if momentum else 1e-9)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: Sgd(momentum=1.0), r"momentum must lie in \[0, 1\), found 1.0"),
        (lambda: Sgd(nesterov=True), "momentum must be > 0 with nesterov, found 0"),
        (lambda: Sign(momentum=-0.1), r"momentum must lie in \[0, 1\), found -0.1"),
        (lambda: Lion(beta2=1.5), r"beta2 must lie in \[0, 1\), found 1.5"),
        (lambda: Adafactor(decay=0.0), "decay, clip and eps must be > 0, found 0.0, 1.0 and 1e-30"),
        (lambda: Adafactor(beta1=1.0), r"beta1 must lie in \[0, 1\), found 1.0"),
    ],
)
def test_wrong_fields_are_refused(rule: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule()  # type: ignore[operator]
