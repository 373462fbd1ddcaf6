"""The contract of residual rules: every rule of the catalog keeps it, and each clause, broken on purpose, is found."""

from __future__ import annotations

import pytest
import torch

from outlay.layout import Layout, Shape, Slot, State
from outlay.residuals import METHODS, Split
from outlay.testing import check_residual


@pytest.mark.parametrize("name", METHODS)
def test_every_rule_of_the_catalog_keeps_it(name: str) -> None:
    check_residual(METHODS[name]())
    check_residual(METHODS[name](), (5, 7), 3)


class Sound:
    """Adds up what is left over; those below break it in one place each."""

    def layout(self, shape: Shape) -> Layout:
        return {"sum": Slot(shape), "count": Slot((), torch.int32)}

    def prepare(self, state: State, g: torch.Tensor) -> torch.Tensor:
        return g + state["sum"]

    def update(self, state: State, split: Split) -> torch.Tensor:
        state["sum"] = state["sum"] + split.gradient - split.lift(split.small)
        state["count"] += 1
        return split.lift(split.direction.raw) * split.direction.factor


class Careless(Sound):
    def __init__(self, fault: str) -> None:
        self.fault, self.calls = fault, 0

    def prepare(self, state: State, g: torch.Tensor) -> torch.Tensor:
        if self.fault == "prepares in place":
            return g.add_(state["sum"] + 1)
        return super().prepare(state, g).double() if self.fault == "prepares double" else super().prepare(state, g)

    def update(self, state: State, split: Split) -> torch.Tensor:
        self.calls += 1
        before = split.gradient.clone()
        got = super().update(state, split)
        match self.fault:
            case "writes to the gradient":
                split.gradient.mul_(2)
            case "writes to the coordinates":
                split.small.zero_()
            case "grows a slot":
                state["extra"] = before
            case "retypes a slot":
                state["sum"] = state["sum"].double()
            case "drops a slot":
                del state["count"]
            case "hidden":
                got = got * (1 + self.calls)
            case "draws":
                got = got * torch.rand(())
            case "not a number":
                got = got / before.norm() * before.norm()
            case "drifts":
                got = got + 1
            case "wrong shape":
                got = got.T
            case "wrong type":
                got = got.double()
            case "gives the gradient":
                got = split.gradient
            case "gives its state":
                state["sum"] = got
        return got


def test_a_sound_rule_passes() -> None:
    check_residual(Sound())


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("prepares in place", "the gradient is not written to; Careless in torch.float32 changed it in prepare"),
        ("prepares double", "prepare returns a gradient of the same shape and type"),
        ("writes to the gradient", "gradient is not written to; Careless in torch.float32 changed it in update"),
        ("writes to the coordinates", "the coordinates is not written to"),
        ("grows a slot", "the state is what the layout says"),
        ("retypes a slot", "the state is what the layout says"),
        ("drops a slot", "the state is what the layout says"),
        ("hidden", "the state carries everything"),
        ("draws", "the same is done with the same|randomness comes from named streams"),
        ("not a number", "no gradient and no direction give no update"),
        ("drifts", "no gradient and no direction give no update"),
        ("wrong shape", "an update has the matrix's shape"),
        ("wrong type", "an update has the gradient's type"),
        (
            "gives the gradient",
            "an update is a tensor of its own; what Careless in torch.float32 returned shares memory with prepared gradient",
        ),
        ("gives its state", "an update is a tensor of its own; what Careless in torch.float32 returned shares memory with sum"),
    ],
)
def test_broken_rules_are_refused(fault: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_residual(Careless(fault))
