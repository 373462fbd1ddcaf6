from __future__ import annotations

import numpy as np
import pytest
import torch

from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.sources import Arrays, Columns, Images, Shuffled, count_units
from outlay.testing import check_source

TEN = Columns({"inputs": torch.arange(10).float().unsqueeze(1) * 2, "labels": torch.arange(10)})


def read(stream: Shuffled, count: int) -> list[int]:
    labels = stream.draw(count)["labels"].tolist()
    stream.advance(count)
    return labels


def test_every_epoch_is_its_own_permutation() -> None:
    stream = Shuffled(TEN, Context(seed=4))
    order = read(stream, 7) + read(stream, 7) + read(stream, 16)
    epochs = [order[:10], order[10:20], order[20:]]
    for number, epoch in enumerate(epochs):
        assert epoch == numpy_generator(4, "order", number).permutation(10).tolist()
    assert epochs[0] != epochs[1] != epochs[2]


def test_rows_keep_their_columns_together() -> None:
    batch = Shuffled(TEN, Context(seed=4)).draw(10)
    assert batch["inputs"].squeeze(1).tolist() == [2.0 * label for label in batch["labels"].tolist()]


def test_processes_take_turns() -> None:
    whole = read(Shuffled(TEN, Context(seed=4)), 7)
    parts = [read(Shuffled(TEN, Context(seed=4, rank=rank, world=3)), 7) for rank in range(3)]
    assert parts == [whole[0::3], whole[1::3], whole[2::3]]


def test_cursor_counts_over_epochs_and_refuses_other_data() -> None:
    stream = Shuffled(TEN, Context(seed=4))
    read(stream, 23)
    state = stream.state_dict()
    assert state == {"cursor": 23, "examples": 10}
    resumed = Shuffled(TEN, Context(seed=4))
    resumed.load_state_dict(state)
    assert read(resumed, 5) == read(stream, 5)
    with pytest.raises(InputError, match="holds 10 examples, but 11 when the run was saved"):
        resumed.load_state_dict({"cursor": 0, "examples": 11})
    with pytest.raises(InputError, match="no training example"):
        Shuffled(Columns({"labels": torch.empty(0)}), Context(seed=0))


def test_columns_must_be_of_one_length() -> None:
    with pytest.raises(InputError, match=r"equally many examples.*found \{'a': 3, 'b': 2\}"):
        Columns({"a": torch.zeros(3), "b": torch.zeros(2)})


def test_units_leave_padding_out() -> None:
    ids = torch.zeros(2, 5, dtype=torch.long)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert count_units({"input_ids": ids, "attention_mask": mask}) == {"examples": 2.0, "tokens": 8.0}
    assert count_units({"input_ids": ids}) == {"examples": 2.0, "tokens": 10.0}
    assert count_units({"inputs": torch.zeros(3, 4)}) == {"examples": 3.0}


def test_contract_of_arrays() -> None:
    train = {"inputs": np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), "labels": np.arange(50)}
    test = {"inputs": np.zeros((4, 3), np.float32), "labels": np.arange(4)}
    check_source(lambda: Arrays(train, test), Context(seed=0))
    with pytest.raises(InputError, match="no held-out part"):
        Arrays(train).held_out(Context(seed=0))


def test_contract_of_images() -> None:
    check_source(lambda: Images("digits"), Context(seed=0))
    flat, shaped = (Images("digits", channels=channels).held_out(Context(seed=0)).collate([0, 1]) for channels in (False, True))
    assert flat["inputs"].shape == (2, 8, 8)
    assert shaped["inputs"].shape == (2, 1, 8, 8)
    assert flat["inputs"].dtype == torch.float32
    assert torch.equal(shaped["inputs"][:, 0], flat["inputs"])
