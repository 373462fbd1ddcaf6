"""Pruning masks: how many are kept, which, and what calibration sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from outlay.adapters.pruning import input_norms, keep_of_group, keep_share, magnitude, random, wanda
from outlay.errors import InputError


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 7), columns=st.integers(1, 9), sparsity=st.floats(0, 0.99), by_rows=st.booleans(), ties=st.booleans())
def test_so_many_are_kept_and_none_is_better_than_they(rows: int, columns: int, sparsity: float, by_rows: bool, ties: bool) -> None:
    scores = matrix(rows, columns).abs()
    if ties:
        scores = scores.round()
    mask = keep_share(scores, sparsity, by_rows)
    for kept, score in zip(mask if by_rows else [mask], scores if by_rows else [scores], strict=True):
        assert int(kept.sum()) == kept.numel() - round(sparsity * kept.numel())
        if kept.any() and not kept.all():
            assert score[kept].min() >= score[~kept].max()


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 5), groups=st.integers(1, 4), keep=st.integers(1, 3), more=st.integers(1, 4))
def test_of_every_group_the_largest_are_kept(rows: int, groups: int, keep: int, more: int) -> None:
    group = keep + more
    scores = matrix(rows, groups * group).abs()
    mask = keep_of_group(scores, keep, group)
    for row, kept in zip(scores, mask, strict=True):
        for start in range(0, len(row), group):
            best = set(row[start : start + group].topk(keep).indices.tolist())
            assert set(kept[start : start + group].nonzero().flatten().tolist()) == best
    with pytest.raises(InputError, match=f"{keep} of every {group} inputs cannot be kept: the layer has {groups * group + 1}"):
        keep_of_group(matrix(rows, groups * group + 1), keep, group)


def test_of_equal_scores_the_first_are_kept() -> None:
    assert keep_share(torch.ones(2, 2), 0.5).tolist() == [[True, True], [False, False]]
    assert keep_of_group(torch.ones(1, 4), 2, 4).tolist() == [[True, True, False, False]]


def test_the_scores() -> None:
    w, norms = torch.tensor([[1.0, -3.0], [2.0, 0.5]]), torch.tensor([4.0, 1.0])
    assert magnitude(w).tolist() == [[1.0, 3.0], [2.0, 0.5]]
    assert wanda(w, norms).tolist() == [[4.0, 3.0], [8.0, 0.5]]
    assert wanda(w.half(), torch.tensor([1e6, 2e6])).tolist() == [[1e6, 6e6], [2e6, 1e6]]  # beyond what half precision holds
    assert torch.equal(random(w, 1, "a"), random(w, 1, "a"))
    assert not torch.equal(random(w, 1, "a"), random(w, 2, "a")) and not torch.equal(random(w, 1, "a"), random(w, 1, "b"))


def test_norms_of_inputs_over_all_positions_of_all_examples() -> None:
    one, two = nn.Linear(3, 4), nn.Linear(4, 2)
    module: Any = nn.Sequential(one, nn.Dropout(0.5), nn.BatchNorm1d(4), two)
    module[2].eval()
    data = matrix(5, 6).reshape(5, 2, 3)  # five examples of two positions
    norms = input_norms(module, [("one", one), ("two", two)], lambda number: module(data[number]).sum(), 4)
    assert torch.allclose(norms["one"], data[:4].reshape(-1, 3).norm(dim=0))
    # without dropout, though the module was training
    hidden = module[2](one(data[:4].reshape(-1, 3)))
    assert torch.allclose(norms["two"], hidden.norm(dim=0), atol=1e-6)
    assert module.training and module[1].training and not module[2].training
    assert not one._forward_pre_hooks and all(p.grad is None for p in module.parameters())


def test_a_layer_that_is_not_used_is_an_input_error() -> None:
    used, idle = nn.Linear(3, 2), nn.Linear(3, 2)
    with pytest.raises(InputError, match="idle is not used for any of the 2 calibration examples"):
        input_norms(nn.Sequential(used), [("used", used), ("idle", idle)], lambda number: used(torch.ones(3)).sum(), 2)
