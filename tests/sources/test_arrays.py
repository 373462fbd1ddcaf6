"""Arrays in memory: rows by number, columns of one length, and a held-out part of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from outlay.context import Context
from outlay.errors import InputError
from outlay.sources import Arrays, Columns
from outlay.testing import check_source

TRAIN = {"inputs": np.arange(22.0, dtype=np.float32).reshape(11, 2), "labels": np.arange(11)}
TEST = {"inputs": np.arange(100.0, 106.0, dtype=np.float32).reshape(3, 2), "labels": np.arange(3)}


def test_rows_keep_their_columns_together() -> None:
    batch = Columns({name: torch.as_tensor(column) for name, column in TRAIN.items()}).collate([4, 0])
    assert batch["inputs"].tolist() == [[8.0, 9.0], [0.0, 1.0]]
    assert batch["labels"].tolist() == [4, 0]


def test_an_epoch_reads_every_row_once_and_no_test_row() -> None:
    stream = Arrays(TRAIN, TEST).open(Context(seed=1))
    assert sorted(stream.draw(11)["labels"].tolist()) == list(range(11))
    assert float(stream.draw(11)["inputs"].max()) < 100


def test_held_out_rows_are_the_test_rows() -> None:
    kept = Arrays(TRAIN, TEST).held_out(Context(seed=1))
    assert kept.collate(range(3))["inputs"].tolist() == TEST["inputs"].tolist()


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="no held-out part"):
        Arrays(TRAIN).held_out(Context(seed=0))
    with pytest.raises(InputError, match="equally many examples"):
        Arrays({"inputs": np.zeros((3, 1)), "labels": np.zeros(2)}).open(Context(seed=0))
    with pytest.raises(InputError, match="no training example"):
        Arrays({"inputs": np.zeros((0, 1))}).open(Context(seed=0))


def test_contract() -> None:
    check_source(lambda: Arrays(TRAIN, TEST), Context(seed=5))
