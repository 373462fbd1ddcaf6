"""The contract of inner rules: every rule of the catalog keeps it, and each clause, broken on purpose, is found."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from outlay.formats import Bf16
from outlay.inner_rules import METHODS, Adam, Direction
from outlay.layout import Layout, Shape, Slot, State
from outlay.testing import check_inner_rule


@pytest.mark.parametrize("name", METHODS)
def test_every_rule_of_the_catalog_keeps_it(name: str) -> None:
    check_inner_rule(METHODS[name]())


def test_adams_settings_keep_it() -> None:
    check_inner_rule(Adam(late_eps=True))
    check_inner_rule(Adam(bias_correction=False), (3, 5))
    check_inner_rule(Adam(states=Bf16()), tolerance=0.01)


class Sound:
    """Momentum; those below break it in one place each."""

    elementwise: ClassVar[bool] = True

    def layout(self, shape: Shape) -> Layout:
        return {"m": Slot(shape)}

    def direction(self, state: State, g: torch.Tensor, step: int) -> Direction:
        state["m"].lerp_(g, 0.1)
        return Direction(state["m"].clone(), 1 / (1 - 0.9**step))

    def rotate(self, state: State, turn: torch.Tensor, shape: Shape) -> None:
        state["m"].copy_(state["m"] @ turn)

    def clear(self, state: State) -> None:
        state["m"].zero_()


class Careless(Sound):
    def __init__(self, fault: str) -> None:
        self.fault, self.calls = fault, 0

    def direction(self, state: State, g: torch.Tensor, step: int) -> Direction:
        self.calls += 1
        made = super().direction(state, g, step)
        raw, factor = made.raw, made.factor
        match self.fault:
            case "writes to the gradient":
                g.mul_(2)
            case "grows a slot":
                state["extra"] = g.clone()
            case "retypes a slot":
                state["m"] = state["m"].double()
            case "hidden":
                raw = raw * self.calls
            case "hidden factor":
                factor *= self.calls
            case "draws":
                raw = raw * torch.rand(())
            case "not a number":
                raw = raw / raw.norm()
            case "drifts":
                raw = raw + 1
            case "wrong shape":
                raw = raw.flatten()[:-1]
            case "wrong type":
                raw = raw.double()
            case "gives the gradient":
                raw = g
            case "gives its state":
                raw = state["m"]
            case "factor of zero":
                factor = 0.0
            case "as a whole":
                raw = raw * raw.sum()
            case "by rows":
                raw = raw / (1 + raw.abs().amax(-1, keepdim=True)) if raw.dim() else raw
        return Direction(raw, factor)

    def rotate(self, state: State, turn: torch.Tensor, shape: Shape) -> None:
        super().rotate(state, turn.T if self.fault == "turns back" else turn, shape)
        if self.fault == "rotates into more":
            state["turn"] = turn

    def clear(self, state: State) -> None:
        if self.fault == "clears away":
            del state["m"]
        else:
            super().clear(state)


def test_a_sound_rule_passes() -> None:
    check_inner_rule(Sound())


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("writes to the gradient", "the gradient is not written to; Careless in torch.float32 changed it in step 1"),
        ("grows a slot", "the state is what the layout says"),
        ("retypes a slot", "the state is what the layout says"),
        ("hidden", "the state carries everything"),
        ("hidden factor", "the state carries everything"),
        ("draws", "the same is done with the same|randomness comes from named streams"),
        ("not a number", "directions of finite gradients are finite"),
        ("drifts", "a first gradient of zero gives no direction"),
        ("wrong shape", "a direction has the gradient's shape and type"),
        ("wrong type", "a direction has the gradient's shape and type"),
        ("gives the gradient", "a direction is a tensor of its own; what Careless in torch.float32 returned shares memory with gradient"),
        ("gives its state", "a direction is a tensor of its own; what Careless in torch.float32 returned shares memory with m"),
        ("factor of zero", "a factor is a positive number"),
        ("as a whole", "an elementwise rule does the same with a slice"),
        ("by rows", "an elementwise rule does the same with the transpose"),
        ("turns back", "what is rotated goes on in the new coordinates as it would in the old"),
        ("rotates into more", "the state is what the layout says; Careless after rotate"),
        ("clears away", "the state is what the layout says; Careless after clear"),
    ],
)
def test_broken_rules_are_refused(fault: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_inner_rule(Careless(fault))
