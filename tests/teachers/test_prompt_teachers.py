"""Every teacher over prompts and categories keeps the contract."""

import pytest

from outlay.arms import Arm
from outlay.teachers import (
    Cures,
    Cyclical,
    Dump,
    EasyToHard,
    Floor,
    Gain,
    HistoricalVariance,
    Lim,
    Pcl,
    Sec,
    Teacher,
)
from outlay.testing import check_teacher

TEACHERS: list[Teacher] = [
    Sec(),
    Sec(alpha=1.0, tau=0.1),
    Dump(),
    Dump(window=5, weight=0.0),
    EasyToHard(),
    EasyToHard(width=2, reverse=True),
    EasyToHard(width=1, advance=0.5, answers=8),
    Pcl(),
    Pcl(over=1, tau=0.8),
    Cures(),
    Gain(),
    Gain(sigma=1.5, step=2.0),
    Gain(sigma=0.05),
    Lim(),
    Lim(top=2, epochs=3),
    Lim(share=1.0),
    Lim(share=0.0),
    HistoricalVariance(),
    HistoricalVariance(top=3, score="lim", epochs=2),
    Cyclical(),
    Cyclical(start=0.5, end=0.5, epochs=1.0),
    Floor(Dump(), 0.3),
    Floor(Pcl(), 0.5),
    Floor(Gain(sigma=1.5), 0.2),
    Floor(Floor(Cures(), 0.2), 1.0),
]


@pytest.mark.parametrize("teacher", TEACHERS, ids=repr)
def test_contract(teacher: Teacher) -> None:
    check_teacher(teacher)


@pytest.mark.parametrize("teacher", TEACHERS, ids=repr)
def test_contract_over_a_pool_of_single_questions(teacher: Teacher) -> None:
    pool = [Arm(str(i), f"level {i % 3}", difficulty=i % 3, size=1, text=f"question {i}") for i in range(12)]
    check_teacher(teacher, pool, steps=2, count=7, long=0)


@pytest.mark.parametrize("teacher", TEACHERS, ids=repr)
def test_contract_over_a_single_arm(teacher: Teacher) -> None:
    check_teacher(teacher, [Arm("alone", difficulty=1.0)], steps=2, count=3, long=0)
