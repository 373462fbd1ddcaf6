"""Key tokens: the weight that balances them and its limits; bounds that fall apart into samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_texts import DEMONSTRATIONS, bigram, log_prob, same_gradient, text

from outlay.errors import InputError
from outlay.objectives import KeyTokens, NextToken
from outlay.objectives.sample_bounds import ratio_bound_terms
from outlay.testing import check_objective


def keyed(*keys: tuple[int, int]) -> dict[str, torch.Tensor]:
    batch = text(DEMONSTRATIONS)
    batch["key"] = torch.zeros_like(batch["labels"], dtype=torch.bool)
    for row, place in keys:
        batch["key"][row, place] = True
    return batch


@pytest.mark.parametrize(("keys", "most", "weight"), [(((0, 1),), 9.0, 9.0), (((0, 1),), 4.0, 4.0), (((0, 1), (1, 2), (1, 3)), 9.0, 7 / 3)])
def test_by_its_formula(keys: Any, most: float, weight: float) -> None:
    model = bigram()
    parts = [-log_prob(model, *row) for row in DEMONSTRATIONS]
    w = [torch.ones(len(part), dtype=torch.float64) for part in parts]
    for row, place in keys:
        w[row][place - len(DEMONSTRATIONS[row][0])] = weight
    expected = sum((a * b).sum() for a, b in zip(parts, w, strict=True)) / sum(one.sum() for one in w)
    loss, _ = KeyTokens(most)(model, keyed(*keys), {})
    assert float(loss) == pytest.approx(float(expected), rel=1e-10)
    assert same_gradient(loss, expected, model)  # type: ignore[arg-type]
    assert KeyTokens(most).weight(keyed(*keys)) == pytest.approx(float(sum(one.sum() for one in w)))


def test_none_or_many_keys_are_plain_fine_tuning() -> None:
    model = bigram()
    every = keyed()
    every["key"][:] = True
    for batch in (keyed(), every, keyed((0, 0))):  # a prompt's token is no key
        loss, plain = KeyTokens()(model, batch, {})[0], NextToken()(model, batch, {})[0]
        assert float(loss) == pytest.approx(float(plain), rel=1e-12)
        assert same_gradient(loss, plain, model)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="needs the column key, True on the tokens that decide"):
        KeyTokens()(bigram(), text(DEMONSTRATIONS), {})
    with pytest.raises(ValueError, match="max_weight must be finite and >= 1, found 0.5"):
        KeyTokens(0.5)


def test_contract() -> None:
    check_objective(KeyTokens(), bigram(), keyed((0, 1), (3, 4)))


# ---- bounds that fall apart -----------------------------------------------------------------------------------------------------------


@given(st.floats(min_value=-3, max_value=3), st.lists(st.floats(min_value=-3, max_value=3), min_size=1, max_size=6))
def test_the_terms_bound_from_below(advantage: float, d: list[float]) -> None:
    d_ = torch.tensor(d, dtype=torch.float64)
    assert float(ratio_bound_terms(advantage, d_).sum()) <= float(advantage * d_.mean().exp()) + 1e-9


@pytest.mark.parametrize("advantage", [1.7, -0.6])
def test_at_the_older_policy_value_and_gradient_are_the_objectives(advantage: float) -> None:
    d = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    whole, terms = advantage * d.mean().exp(), ratio_bound_terms(advantage, d)
    assert float(terms.sum()) == pytest.approx(float(whole))
    assert torch.allclose(*(torch.autograd.grad(value, d)[0] for value in (whole, terms.sum())))


@pytest.mark.parametrize("advantage", [1.7, -0.6])
def test_sent_back_one_by_one_the_gradient_is_the_wholes(advantage: float) -> None:
    theta = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    masks = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (expected,) = torch.autograd.grad(ratio_bound_terms(advantage, (masks @ theta).sin()).sum(), theta)
    for mask in masks:
        (ratio_bound_terms(advantage, (mask @ theta).sin()[None]).sum() / 4).backward()
    assert torch.allclose(theta.grad, expected)  # type: ignore[arg-type]
