"""Every repair keeps the contract of its family."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from outlay.repairs import METHODS, Drop, Easier, ExpertFailures, Guide, HintPrefix, Refill, Repair, Replay, Scaffold, Tree
from outlay.testing import check_repair

FILTERS = {"drop", "refill"}
OTHERS: list[tuple[Callable[[], Repair], bool]] = [
    (lambda: Refill(low=0.25, high=0.75, rounds=5), True),
    (lambda: Replay(alpha=0.0, capacity=3), False),
    (lambda: Replay(alpha=4.0, capacity=100), False),
    (lambda: Scaffold(exempt=0.0, levels=2, template="{hint} {question}\n"), False),
    (lambda: HintPrefix(shares=(0.5,)), False),
    (lambda: Guide(share=1.0, portion=1.0), False),
    (lambda: Tree(children=2, depth=2, rare=0.5, remembered=2, uncertainty=0.4), False),
    (lambda: Tree(children=1, depth=1), False),
    (lambda: ExpertFailures(shares=(0.3, 0.8), joined=2), False),
    (lambda: Easier(steps=3), False),
    (lambda: Drop(), True),
]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_with_its_defaults(name: str) -> None:
    check_repair(METHODS[name], filters=name in FILTERS)


@pytest.mark.parametrize(("make", "filters"), OTHERS)
def test_other_settings(make: Callable[[], Repair], filters: bool) -> None:
    check_repair(make, filters=filters)
