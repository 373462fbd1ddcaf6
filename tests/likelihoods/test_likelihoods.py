"""Likelihoods: the three ratios by hand, their gradients, and values that would overflow."""

from __future__ import annotations

import math

import pytest
import torch

from outlay.likelihoods import Likelihood, Sequence, Token, WholeSequence
from outlay.testing import check_likelihood

#: an answer whose tokens became 2, 4 and 1/2 times as likely, and one of a single token, 3 times; what is masked is noise
BEFORE = torch.tensor([[-1.0, -2.0, -3.0, 5.0], [7.0, -2.0, 5.0, 5.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, True, False], [False, True, False, False]])
NOW = BEFORE + torch.tensor([[math.log(2), math.log(4), math.log(0.5), 3.0], [3.0, math.log(3), 3.0, 3.0]])


def ratio(likelihood: Likelihood) -> tuple[torch.Tensor, torch.Tensor]:
    current = NOW.clone().requires_grad_()
    found = likelihood.ratio(current, BEFORE, MASK)
    (gradient,) = torch.autograd.grad((found * MASK).sum(), current)
    return found.detach()[MASK], gradient[MASK]


def test_token() -> None:
    found, gradient = ratio(Token())
    assert found.tolist() == pytest.approx([2, 4, 0.5, 3])
    assert torch.allclose(gradient, found)  # grad r_t = r_t grad log pi_t


def test_sequence_is_the_geometric_mean_and_every_token_moves_by_it() -> None:
    found, gradient = ratio(Sequence())
    mean = 4 ** (1 / 3)
    assert found.tolist() == pytest.approx([mean] * 3 + [3])
    assert gradient.tolist() == pytest.approx([mean] * 3 + [3])


def test_sequence_lets_every_token_have_its_own_advantage() -> None:
    current = NOW.clone().requires_grad_()
    advantage = torch.tensor([[1.0, -2.0, 3.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    (gradient,) = torch.autograd.grad((Sequence().ratio(current, BEFORE, MASK) * advantage)[0].sum(), current)
    assert gradient[0, :3].tolist() == pytest.approx([4 ** (1 / 3) * a for a in (1, -2, 3)])


def test_the_mean_over_an_answer_has_the_gradient_of_its_normalised_likelihood() -> None:
    # mean_t r_t against s itself: sum_t grad log pi_t / |y| times s
    current = NOW.clone().requires_grad_()
    s = (((current - BEFORE) * MASK).sum(1) / MASK.sum(1)).exp()
    (whole,) = torch.autograd.grad(s.sum(), current)
    again = NOW.clone().requires_grad_()
    mean = (Sequence().ratio(again, BEFORE, MASK) * MASK).sum(1) / MASK.sum(1)
    (ours,) = torch.autograd.grad(mean.sum(), again)
    assert torch.allclose(mean.detach(), s.detach()) and torch.allclose(ours, whole)


def test_whole_sequence_is_the_product_with_its_gradient() -> None:
    current = NOW.clone().requires_grad_()
    product = ((current - BEFORE) * MASK).sum(1).exp()
    (whole,) = torch.autograd.grad(product.sum(), current)
    again = NOW.clone().requires_grad_()
    mean = (WholeSequence().ratio(again, BEFORE, MASK) * MASK).sum(1) / MASK.sum(1)
    (ours,) = torch.autograd.grad(mean.sum(), again)
    assert product.tolist() == pytest.approx([4, 3])
    assert torch.allclose(mean.detach(), product.detach()) and torch.allclose(ours, whole)


@pytest.mark.parametrize("likelihood", [Token(), Sequence(), WholeSequence()], ids=str)
def test_far_ratios_are_held_and_still_push(likelihood: Likelihood) -> None:
    before = torch.zeros(1, 1)
    for far, held in ((1e5, math.exp(20)), (-1e5, math.exp(-20)), (19.5, math.exp(19.5))):
        current = torch.tensor([[far]], requires_grad=True)
        found = likelihood.ratio(current, before, torch.ones(1, 1, dtype=torch.bool))
        (gradient,) = torch.autograd.grad(found.sum(), current)
        assert found.item() == pytest.approx(held, rel=1e-5) and gradient.item() == pytest.approx(held, rel=1e-5)


@pytest.mark.parametrize("likelihood", [Token(), Sequence(), WholeSequence()], ids=str)
def test_contract(likelihood: Likelihood) -> None:
    check_likelihood(likelihood)
