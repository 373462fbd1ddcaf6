"""The family's check refuses repairs that break its rules, each for its own reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from outlay.context import Context
from outlay.repairs import Group, Replay, Workshop
from outlay.repairs.base import Forgetful
from outlay.repairs.replay import Replaying
from outlay.sources.base import Batch
from outlay.testing import check_repair


class Plain(Forgetful):
    def open(self, context: Context) -> Plain:
        return type(self)()

    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        return list(groups[:wanted])


class TooMany(Plain):
    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        return list(groups)


class TooFew(Plain):
    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        return list(groups[: max(0, wanted - 1)])


class Shrinking(Plain):
    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        return [replace(group, attempts=group.attempts[1:]) if group.failed else group for group in groups[:wanted]]


class Meddling(Plain):
    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        return [replace(group, attempts=group.attempts[::-1]) if group.varied else group for group in groups[:wanted]]


class Writing(Plain):
    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        for group in groups[:wanted]:
            group.hinted = 0.5
        return list(groups[:wanted])


class Lying(Plain):
    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        return [
            replace(group, attempts=[replace(group.attempts[0], value=1.0), *group.attempts[1:]]) if group.failed else group
            for group in groups[:wanted]
        ]


class Late(Plain):
    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        for group in groups[:wanted]:
            if group.failed:
                shop.answer([group.question], 1)
        return list(groups[:wanted])


class Eager(Plain):
    """Looks at the budget only after the first request."""

    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        for group in groups[:wanted]:
            shop.answer([group.question], 1)
            if shop.cut:
                break
        return list(groups[:wanted])


class Rolling(Plain):
    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        np.random.rand()
        return list(groups[:wanted])


class Hidden(Plain):
    """Keeps a count that is in no state."""

    def __init__(self) -> None:
        self.count = 0

    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        self.count += 1
        if shop.cut:
            return list(groups[:wanted])
        return [replace(group, hinted=min(1.0, self.count / 10)) if group.failed else group for group in groups[:wanted]]


class Arrays(Plain):
    def state_dict(self) -> dict[str, Any]:
        return {"seen": (1, 2)}


@pytest.mark.parametrize(
    ("cls", "rule"),
    [
        (TooMany, "at most as many"),
        (TooFew, "not left out"),
        (Shrinking, "keeps its size"),
        (Meddling, "left alone"),
        (Writing, "stay as they were"),
        (Lying, "what the workshop's judge says"),
        (Late, "nothing is asked after"),
        (Eager, "nothing is mended after the end"),
        (Rolling, "global generator"),
        (Hidden, "going on from a state"),
        (Arrays, "plain values"),
    ],
)
def test_each_rule_refuses_who_breaks_it(cls: type[Plain], rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_repair(cls)


def test_who_does_nothing_keeps_the_contract() -> None:
    check_repair(Plain)


def test_who_filters_may_leave_groups_out() -> None:
    check_repair(TooFew, filters=True)


# ---- replaying ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spoilt(Replay):
    how: str = ""

    def open(self, context: Context) -> Replaying:
        return Spoiling(self)


class Spoiling(Replaying):
    def replay(self, batch: Batch, padding: int, rng: np.random.Generator) -> Batch:
        how = self.spec.how  # type: ignore[attr-defined]
        if how == "nothing":
            return batch
        came = dict(super().replay(batch, 0 if how == "padding" else padding, rng))
        if not self._rows:
            return batch
        if how == "labels":
            came["labels"] = came["labels"].clamp(min=0)
        if how == "group":
            came["group"] = came["group"].flip(0)
        if how == "loud":
            came["advantage"] = came["advantage"] * 2
        if how == "columns":
            came["replayed"] = torch.zeros(len(came["group"]))
        return came

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        if self.spec.how != "memory":  # type: ignore[attr-defined]
            super().load_tensors(tensors)


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        ("nothing", "none stays silent"),
        ("padding", "padding is the padding token"),
        ("labels", "not labelled|rows that teach"),
        ("group", "group's number"),
        ("loud", "rows that teach stay"),
        ("columns", "the columns stay"),
        ("memory", "going on from a state"),
    ],
)
def test_each_rule_of_replaying_refuses_who_breaks_it(how: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_repair(lambda: Spoilt(how=how))
