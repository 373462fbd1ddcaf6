"""Replay: what is stored, with what chance it comes back, and that it comes back unchanged."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from outlay.context import Context
from outlay.objectives import PolicyGradient
from outlay.repairs import Drop, Replay
from outlay.repairs.replay import Replaying, chances
from outlay.rng import numpy_generator
from outlay.sources.base import IGNORED, Batch
from outlay.testing.common import same
from outlay.testing.parts import rollout_batch
from outlay.testing.repairs import Bench

CONTEXT = Context(seed=0)


def rows(*advantages: float, width: int = 6, mark: int = 1) -> Batch:
    """One row an advantage; the prompt is its number and the mark, and the answer is three tokens shorter than the width at most."""
    count = len(advantages)
    present = torch.arange(width).expand(count, width) < width
    ids = torch.arange(count)[:, None] * 100 + mark + torch.zeros(1, width, dtype=torch.long)
    labels = ids.clone()
    labels[:, :2] = IGNORED
    answers = labels != IGNORED
    worth = torch.tensor(advantages, dtype=torch.float64)
    return {
        "input_ids": ids, "attention_mask": present.long(), "labels": labels, "group": torch.arange(count) // 2,
        "reward": worth, "advantage": torch.where(answers, worth[:, None], 0.0), "old": torch.where(answers, -worth[:, None] - mark, 0.0),
        "behaviour": torch.where(answers, -worth[:, None] - 2 * mark, 0.0), "limit": torch.full((count,), mark),
    }  # fmt: skip


def opened(**settings: float) -> Replaying:
    return Replay(**settings).open(CONTEXT)  # type: ignore[arg-type]


def rng(seed: int = 0) -> np.random.Generator:
    return numpy_generator(seed, "test")


def test_chances_are_powers_of_the_magnitudes() -> None:
    assert chances([1.0, 2.0, 5.0], 1.0).tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert chances([1.0, 2.0, 5.0], 2.0).tolist() == pytest.approx([1 / 30, 4 / 30, 25 / 30])
    assert chances([1.0, 2.0, 5.0], 0.0).tolist() == [1 / 3] * 3
    assert chances([1.0, 5.0, 5.0], 1e6).tolist() == [0.0, 0.5, 0.5]
    assert chances([1e-300, 1e300], 100.0).tolist() == [0.0, 1.0]


def test_silent_rows_are_replaced_by_stored_rows_as_they_were() -> None:
    mending = opened(capacity=1)
    earlier = rows(0.0, -2.0, mark=7)
    mending.replay(earlier, 0, rng())
    batch = rows(0.0, 0.0, 0.0, mark=1)
    came = mending.replay(batch, 0, rng())
    for i in range(3):
        for name in batch:
            if name != "group":
                assert torch.equal(came[name][i], earlier[name][1]), name
    assert torch.equal(came["group"], batch["group"]) and same(batch, rows(0.0, 0.0, 0.0, mark=1))


def test_rows_of_the_batch_itself_are_stored_first() -> None:
    came = opened().replay(rows(0.0, 3.0), 0, rng())
    assert torch.equal(came["input_ids"][0], came["input_ids"][1]) and came["reward"].tolist() == [3.0, 3.0]
    assert came["group"].tolist() == [0, 0]


def test_with_nothing_stored_the_batch_stays() -> None:
    batch = rows(0.0, 0.0)
    assert same(opened().replay(batch, 0, rng()), batch)
    full = rows(1.0, -1.0)
    assert same(opened().replay(full, 0, rng()), full)


@pytest.mark.parametrize(("alpha", "share"), [(0.0, 0.5), (1.0, 0.75), (2.0, 0.9), (60.0, 1.0)])
def test_large_advantages_come_back_oftener(alpha: float, share: float) -> None:
    mending = opened(alpha=alpha, capacity=2)
    mending.replay(rows(1.0, -3.0), 0, rng())
    came = mending.replay(rows(*[0.0] * 4000), 0, rng())
    counts = Counter(came["reward"].tolist())
    assert set(counts) <= {1.0, -3.0} and counts[-3.0] / 4000 == pytest.approx(share, abs=0.03)


def test_the_magnitude_is_the_mean_over_the_answer() -> None:
    batch = rows(1.0, 1.0)
    batch["advantage"][0, 2:] = torch.tensor([0.0, 0.0, 0.0, -8.0])
    mending = opened()
    mending.replay(batch, 0, rng())
    assert [row.magnitude for row in mending._rows] == [1.0]  # half of the batch's rows stay: the second
    mending = opened(capacity=2)
    mending.replay(batch, 0, rng())
    assert [row.magnitude for row in mending._rows] == [2.0, 1.0]


def test_only_the_latest_rows_stay() -> None:
    mending = opened(capacity=3)
    mending.replay(rows(1.0, 2.0), 0, rng())
    mending.replay(rows(3.0, 0.0, 4.0), 0, rng())
    assert [float(row.single["reward"]) for row in mending._rows] == [2.0, 3.0, 4.0]
    default = opened()
    default.replay(rows(1.0, 2.0, 3.0, 4.0, 5.0), 0, rng())
    assert [float(row.single["reward"]) for row in default._rows] == [4.0, 5.0]


def test_a_wider_row_widens_the_batch_and_a_narrower_one_is_padded() -> None:
    mending = opened(capacity=1)
    mending.replay(rows(2.0, width=11), 9, rng())
    came = mending.replay(rows(0.0, 0.0, width=6), 9, rng())
    assert came["input_ids"].shape == (2, 16)
    assert came["input_ids"][0].tolist() == [1] * 11 + [9] * 5 and came["labels"][0].tolist() == [IGNORED] * 2 + [1] * 9 + [IGNORED] * 5
    assert came["attention_mask"].sum(1).tolist() == [11, 11] and came["advantage"][0].tolist() == [0.0] * 2 + [2.0] * 9 + [0.0] * 5
    narrow = opened(capacity=1)
    narrow.replay(rows(2.0, width=6), 9, rng())
    batch = rows(0.0, 0.0, width=11)
    came = narrow.replay(batch, 9, rng())
    assert came["input_ids"].shape == (2, 11) and came["input_ids"][1].tolist() == [1] * 6 + [9] * 5
    assert came["old"][1].tolist() == [0.0] * 2 + [-3.0] * 4 + [0.0] * 5


def test_rows_that_teach_are_padded_too_when_the_batch_widens() -> None:
    mending = opened(capacity=2)
    mending.replay(rows(9.0, width=12), 5, rng())
    came = mending.replay(rows(1e-12, 0.0, width=6), 5, rng())  # the wide row is drawn, all but surely
    assert came["input_ids"][0].tolist() == [1] * 6 + [5] * 10 and came["labels"][0, 6:].tolist() == [IGNORED] * 10
    assert came["attention_mask"].sum(1).tolist() == [6, 12]


def test_demonstrations_stay_and_rows_of_another_layout_are_forgotten() -> None:
    mending = opened()
    batch = rows(0.0, 0.0, 2.0) | {"demonstration": torch.tensor([True, False, False])}
    came = mending.replay(batch, 0, rng())
    assert came["reward"].tolist() == [0.0, 2.0, 2.0] and came["demonstration"].tolist() == [True, False, False]
    plain = rows(0.0, 0.0)
    assert same(mending.replay(plain, 0, rng()), plain)


def test_without_advantages_it_says_what_it_needs() -> None:
    batch = rows(0.0)
    del batch["advantage"]
    with pytest.raises(ValueError, match="advantage"):
        opened().replay(batch, 0, rng())


def test_groups_are_not_touched_and_nothing_is_charged() -> None:
    shop = Bench()
    groups = shop.ask(4)
    charged = shop.charged
    assert opened().mend(groups, 3, shop) == groups[:3] and shop.charged == charged


def test_what_an_objective_prepared_is_filled_and_keeps_its_size() -> None:
    objective, mending = PolicyGradient(), opened()
    batch = rollout_batch(0, groups=4)
    batch["reward"][:8] = 1.0  # two groups without signal
    came = objective.prepare(torch.nn.Identity(), batch, {})
    silent = (came["advantage"] == 0).all(1)
    filled = mending.replay(came, 0, rng())
    assert silent[:8].all() and (filled["advantage"] != 0).any(1).all() and len(filled["labels"]) == 16
    assert len(Drop().open(CONTEXT).mend(Bench(levels=(9,)).ask(2), 2, Bench())) == 0  # dropping would leave a smaller batch


def test_settings_are_checked() -> None:
    for settings in ({"alpha": -1.0}, {"alpha": float("inf")}, {"capacity": 0}):
        with pytest.raises(ValueError):
            Replay(**settings)  # type: ignore[arg-type]
