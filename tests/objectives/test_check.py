"""The check of objectives finds what is broken in objectives that prepare, compare with a frozen model or need whole groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from small_texts import DEMONSTRATIONS, bigram, groups, text
from torch import nn

from outlay.objectives import DirectPreference, DynamicFineTuning, SimplePreference
from outlay.objectives.sequences import token_log_probs
from outlay.testing import check_objective


@dataclass(frozen=True)
class Parted(SimplePreference):
    """Forgets to say that groups belong together."""

    whole_groups: ClassVar[bool] = False


@dataclass(frozen=True)
class Growing(SimplePreference):
    """Prepares differently each time."""

    def prepare(self, model: nn.Module, batch: Any, knobs: Mapping[str, float]) -> Any:
        return {**batch, "times": batch.get("times", torch.zeros(len(batch["labels"]))) + 1}


@dataclass(frozen=True)
class Credulous:
    """Learns from answers that nobody judged."""

    knobs: ClassVar[dict[str, float]] = {}

    def weight(self, batch: Any) -> float:
        return float(len(batch["labels"]))

    def __call__(self, model: nn.Module, batch: Any, knobs: Mapping[str, float]) -> Any:
        return (token_log_probs(model, batch).sum(1) * batch["reward"]).mean(), {}


@pytest.mark.parametrize(
    ("objective", "rule"),
    [
        (Parted(), "pieces of a batch, averaged by weight, equal the whole"),
        (Growing(), "preparing a prepared batch gives the same; Growing changed times"),
        (Credulous(), "exactly the positions before a labelled token are taught"),
    ],
)
def test_what_is_broken_is_named(objective: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_objective(objective, bigram(), groups())


def test_a_factor_that_is_held_fixed_must_be_told() -> None:
    with pytest.raises(AssertionError, match="the gradient is the loss's"):
        check_objective(DynamicFineTuning(), bigram(), text(DEMONSTRATIONS))


def test_the_frozen_model_is_another_unless_it_is_given() -> None:
    seen = []

    @dataclass(frozen=True)
    class Watching(DirectPreference):
        def bind(self, frozen: Any) -> Any:
            seen.append(frozen())
            return super().bind(frozen)

    model = bigram()
    check_objective(Watching(), model, groups())
    check_objective(Watching(), model, groups(), frozen=bigram(1))
    assert not torch.equal(seen[0].table, model.table) and torch.allclose(seen[0].table, model.table, atol=1.0)
    assert torch.equal(seen[1].table, bigram(1).table) and not any(p.requires_grad for one in seen for p in one.parameters())
