"""Every rule of the parts' contracts refuses a part that breaks it, and only by that rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from outlay.advantages import Group
from outlay.anchors import Kl
from outlay.denominators import Old
from outlay.likelihoods import Token
from outlay.sequences import judged_rows, shifted
from outlay.stabilisers import Clip, Unmasked
from outlay.testing import (
    check_advantage,
    check_anchor,
    check_denominator,
    check_likelihood,
    check_stabiliser,
    rollout_batch,
)


@dataclass(frozen=True)
class Advantage:
    """The group's advantage with one fault."""

    needs_greedy: ClassVar[bool] = False
    needs_values: ClassVar[bool] = False

    fault: str = ""

    def advantages(self, batch: Any, mask: torch.Tensor, shaping: torch.Tensor) -> torch.Tensor:
        found = Group().advantages(batch, mask, shaping)
        if self.fault == "global":
            torch.rand(1)
        return {
            "shape": lambda: found[:, :-1],
            "infinite": lambda: found / torch.zeros(()),
            "outside": lambda: found + ~mask,
            "unjudged": lambda: found + (mask & ~judged_rows(batch)[:, None]),
            "silent": lambda: found * 0,
            "unjudged mean": lambda: (
                Group().advantages({**batch, "judged": torch.ones(len(mask)).bool()}, mask, shaping) * judged_rows(batch)[:, None]
            ),
            "padding": lambda: found * shaping.shape[1],
            "order": lambda: found * torch.arange(1, len(mask) + 1)[:, None],
            "numbers": lambda: found * (1 + batch["group"].max()),
        }.get(self.fault, lambda: found)()


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("shape", "advantages are \\(n, T - 1\\)"), ("infinite", "advantages are finite"), ("outside", "0 outside answers"),
        ("unjudged", "0 outside answers and where nobody could judge"), ("silent", "some answer has an advantage"),
        ("unjudged mean", "not judged has no influence"), ("padding", "padding has no influence"), ("order", "the order of groups has no influence"),
        ("numbers", "groups are told apart by their numbers"), ("global", "never from a global generator"),
    ],
)  # fmt: skip
def test_broken_advantages(fault: str, rule: str) -> None:
    check_advantage(Advantage())
    with pytest.raises(AssertionError, match=rule):
        check_advantage(Advantage(fault))


@dataclass(frozen=True)
class Denominator:
    needs_old: ClassVar[bool] = True

    fault: str = ""

    def log_probs(self, current: torch.Tensor, batch: Any) -> torch.Tensor:
        found = shifted(batch, "old")
        return {"gradient": current, "positive": found + 9}.get(self.fault, found)

    def correction(self, batch: Any) -> torch.Tensor | None:
        if self.fault == "overflow":
            return (batch["old"] - batch["behaviour"])[:, 1:].float().exp()
        found = Old().correction(batch)
        assert found is not None
        return {"shape": found[0], "off": found * 1.5, "negative": 1 - 2 * (found != 1).double()}.get(self.fault, found)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("gradient", "log pi_ref is \\(n, T - 1\\) without gradient"), ("positive", "the logarithm of a probability"),
        ("shape", "corrections are \\(n, T - 1\\)"), ("overflow", "corrections are finite"), ("negative", "corrections are finite and not negative"),
        ("off", "nothing is corrected where trainer and sampler agree"),
    ],
)  # fmt: skip
def test_broken_denominators(fault: str, rule: str) -> None:
    check_denominator(Denominator())
    with pytest.raises(AssertionError, match=rule):
        check_denominator(Denominator(fault))


@dataclass(frozen=True)
class Likelihood:
    fault: str = ""

    def ratio(self, current: torch.Tensor, denominator: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found = Token().ratio(current, denominator, mask)
        return {
            "shape": lambda: found[:, 1:],
            "one": lambda: found * 1.1,
            "still": lambda: found.detach() + 0 * current,
            "outside": lambda: found + ((current - denominator) * ~mask).sum(),
            "backwards": lambda: (2 - found.detach()) + found - found.detach(),
            "overflow": lambda: ((current - denominator) * mask).exp(),
        }.get(self.fault, lambda: found)()


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("shape", "the ratio is \\(n, T - 1\\)"), ("one", "1 where nothing changed"), ("still", "every token of an answer carries gradient"),
        ("outside", "nothing outside the answers"), ("backwards", "grows with the likelihood"), ("overflow", "ratios and gradients stay finite"),
    ],
)  # fmt: skip
def test_broken_likelihoods(fault: str, rule: str) -> None:
    check_likelihood(Likelihood())
    with pytest.raises(AssertionError, match=rule):
        check_likelihood(Likelihood(fault))


@dataclass(frozen=True)
class Stabiliser:
    fault: str = ""

    def surrogate(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        found = Clip().surrogate(ratio, advantage)
        return {
            "shape": lambda: found.sum(),
            "overflow": lambda: ratio.exp() * advantage,
            "unasked": lambda: found + ratio * (advantage == 0),
            "against": lambda: torch.where(ratio > 2, -ratio * advantage, found),
            "doubled": lambda: 2 * found,
        }.get(self.fault, lambda: found)()

    def active(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        found = Clip().active(ratio, advantage)
        return {"number": found.double(), "wrong": Unmasked().active(ratio, advantage)}.get(self.fault, found)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("shape", "one number a token"), ("overflow", "values and gradients are finite"), ("unasked", "without advantage does not move"),
        ("against", "no token moves against its advantage"), ("number", "active is a truth value"), ("wrong", "active says which tokens move"),
        ("doubled", "on policy the gradient is the advantage"),
    ],
)  # fmt: skip
def test_broken_stabilisers(fault: str, rule: str) -> None:
    check_stabiliser(Stabiliser())
    with pytest.raises(AssertionError, match=rule):
        check_stabiliser(Stabiliser(fault))


@dataclass(frozen=True)
class Anchor:
    needs_reference: ClassVar[bool] = True
    in_reward: ClassVar[bool] = False

    fault: str = ""

    @property
    def knobs(self) -> Mapping[str, float]:
        return {"kl": 0.05, "more": 1.0} if self.fault == "knobs" else Kl().knobs

    def prepare(self, batch: Any, mask: torch.Tensor) -> Any:
        changes: dict[str, Callable[[], Any]] = {
            "loses": lambda: {name: column for name, column in batch.items() if name != "old"},
            "scalar column": lambda: {**batch, "edge": torch.zeros(1)},
        }
        return changes.get(self.fault, lambda: batch)()

    def penalty(self, scored: Any, knobs: Mapping[str, float]) -> torch.Tensor:
        found = Kl().penalty(scored, knobs)
        told = dict(knobs) or {"kl": 0.05}
        return {
            "shape": lambda: found.sum(1),
            "outside": lambda: found + ~scored.mask,
            "nothing": lambda: found * 0,
            "default": lambda: Kl(0.06).penalty(scored, knobs),
            "deaf": lambda: Kl().penalty(scored, {}),
            "square": lambda: found * told["kl"] / 0.05,
            "still": lambda: found.detach() + 0 * scored.log_probs,
        }.get(self.fault, lambda: found)()

    def measures(self, scored: Any) -> dict[str, torch.Tensor]:
        return {"kl": torch.zeros(())} if self.fault == "measure" else {}


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("knobs", "an anchor has one knob"), ("loses", "preparing adds columns"), ("scalar column", "every column has one entry a row"),
        ("shape", "a penalty is \\(n, T - 1\\)"), ("outside", "0 outside the answers"), ("nothing", "some token is penalised"),
        ("default", "a knob that is not given stands at its default"), ("deaf", "the knob scales the penalty"), ("square", "the knob scales the penalty"),
        ("still", "a penalty in the loss has a finite gradient"), ("measure", "measures are \\(n, T - 1\\)"),
    ],
)  # fmt: skip
def test_broken_anchors(fault: str, rule: str) -> None:
    check_anchor(Anchor())
    with pytest.raises(AssertionError, match=rule):
        check_anchor(Anchor(fault))


def test_made_up_rollouts_are_sound_and_always_the_same() -> None:
    one, other, third = rollout_batch(), rollout_batch(), rollout_batch(1)
    assert all(torch.equal(one[name], other[name]) for name in one) and not torch.equal(one["input_ids"], third["input_ids"])
    answers = one["labels"] != -100
    assert bool((answers <= one["attention_mask"].bool()).all()) and not answers[:, :2].any() and bool(answers.any(1).all())
    assert torch.equal(one["labels"][answers], one["input_ids"][answers])
    for name in ("behaviour", "old", "reference"):
        assert bool((one[name][answers] < 0).all()) and not one[name][~answers].any()
