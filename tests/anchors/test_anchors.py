"""Anchors: estimators against exact divergences of a policy that can be written out, entropy against torch's, and Lp-Reg's closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from outlay.anchors import Anchor, Entropy, Kl, LowProbability
from outlay.anchors.base import Scored
from outlay.anchors.kl import divergence
from outlay.testing import check_anchor

LOGITS = torch.tensor([0.3, -1.2, 2.0, 0.9], dtype=torch.float64)
REFERENCE = torch.tensor([1.0, 0.2, 0.5, -0.7], dtype=torch.float64)


def every_token(logits: torch.Tensor, advantage: float = -1.0, **columns: torch.Tensor) -> Scored:
    """Return one row a token of the vocabulary, each an answer of that token alone."""
    count = len(logits)
    labels = torch.stack([torch.full((count,), -100), torch.arange(count)], 1)
    mask = torch.ones(count, 1, dtype=torch.bool)
    rows = logits.expand(count, count)
    batch = {"labels": labels, "input_ids": labels.clamp(min=0), **columns}
    return Scored(batch, rows, rows.log_softmax(-1).diagonal()[:, None], mask, torch.full((count, 1), advantage, dtype=logits.dtype))


def against(reference: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(reference.log_softmax(-1)[:, None], (1, 0))


def test_estimators_by_hand() -> None:
    apart = torch.tensor([0.0, 1.0, -0.5], dtype=torch.float64)
    assert divergence(apart, "k1").tolist() == [0.0, 1.0, -0.5]
    assert divergence(apart, "k2").tolist() == [0.0, 0.5, 0.125]
    assert divergence(apart, "k3").tolist() == pytest.approx([0.0, 0.36787944, 0.14872127])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_their_mean_is_the_divergence(estimator: Any) -> None:
    scored = every_token(LOGITS, reference=against(REFERENCE))
    mean = (LOGITS.softmax(-1)[:, None] * Kl(2.0, estimator, in_reward=True).penalty(scored, {})).sum()
    exact = kl_divergence(Categorical(logits=LOGITS), Categorical(logits=REFERENCE))
    assert float(mean) == pytest.approx(2 * float(exact))


@pytest.mark.parametrize(("estimator", "forward"), [("k2", False), ("k3", True)])
def test_the_mean_of_their_gradients(estimator: Any, forward: bool) -> None:
    logits = LOGITS.clone().requires_grad_()
    penalty = Kl(1.0, estimator).penalty(every_token(logits, reference=against(REFERENCE)), {})
    (ours,) = torch.autograd.grad((LOGITS.softmax(-1)[:, None] * penalty).sum(), logits)
    again = LOGITS.clone().requires_grad_()
    pi, reference = Categorical(logits=again), Categorical(logits=REFERENCE)
    (exact,) = torch.autograd.grad(kl_divergence(reference, pi) if forward else kl_divergence(pi, reference), again)
    assert torch.allclose(ours, exact)


def test_the_mean_gradient_of_k1_is_nothing_and_it_is_refused_in_the_loss() -> None:
    logits = LOGITS.clone().requires_grad_()
    penalty = Kl(1.0, "k1", in_reward=True).penalty(every_token(logits, reference=against(REFERENCE)), {})
    (ours,) = torch.autograd.grad((LOGITS.softmax(-1)[:, None] * penalty).sum(), logits)
    assert float(ours.abs().max()) < 1e-12
    with pytest.raises(ValueError, match="the gradient of k1 in the loss is 0 in the mean; take k2 or k3, or in_reward=True"):
        Kl(1.0, "k1")


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_corrected_they_have_the_gradient_of_the_divergence_whoever_drew_the_tokens(estimator: Any) -> None:
    writer = torch.tensor([0.5, 0.5, 1.0, 0.0], dtype=torch.float64)
    for column in ("behaviour", "old"):
        logits = LOGITS.clone().requires_grad_()
        scored = every_token(logits, **{"reference": against(REFERENCE), "behaviour": against(LOGITS + 9), column: against(writer)})
        penalty = Kl(1.0, estimator, corrected=True).penalty(scored, {})
        (ours,) = torch.autograd.grad((writer.softmax(-1)[:, None] * penalty).sum(), logits)
        again = LOGITS.clone().requires_grad_()
        (exact,) = torch.autograd.grad(kl_divergence(Categorical(logits=again), Categorical(logits=REFERENCE)), again)
        assert torch.allclose(ours, exact)
    with pytest.raises(ValueError, match="a penalty in the reward is not corrected"):
        Kl(in_reward=True, corrected=True)


def test_at_the_reference_there_is_no_penalty() -> None:
    scored = every_token(LOGITS, reference=against(LOGITS))
    for estimator in ("k1", "k2", "k3"):
        assert float(Kl(1.0, estimator, in_reward=True).penalty(scored, {}).abs().max()) < 1e-15


def test_far_from_the_reference_nothing_overflows() -> None:
    logits = torch.tensor([0.0, -1000.0, 3.0], requires_grad=True)
    scored = every_token(logits, reference=against(torch.tensor([0.0, 1000.0, 0.0])).float())
    for estimator in ("k2", "k3"):
        penalty = Kl(1.0, estimator).penalty(scored, {})
        (gradient,) = torch.autograd.grad(penalty.sum(), logits, retain_graph=True)
        assert bool(penalty.isfinite().all() and gradient.isfinite().all()) and bool(gradient.any())


def test_entropy_is_torchs_and_so_is_its_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    penalty = Entropy(0.25).penalty(every_token(logits), {})
    (ours,) = torch.autograd.grad(penalty[0, 0], logits)
    again = LOGITS.clone().requires_grad_()
    exact = Categorical(logits=again).entropy()
    (theirs,) = torch.autograd.grad(-0.25 * exact, again)
    assert penalty.squeeze(1).tolist() == pytest.approx([-0.25 * float(exact)] * 4)
    assert torch.allclose(ours, theirs)


def test_entropy_of_tokens_that_cannot_come() -> None:
    logits = torch.tensor([0.0, 0.0, -torch.inf], requires_grad=True)
    scored = Scored({}, logits[None], torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1))
    assert float(Entropy(1.0).penalty(scored, {}).detach()) == pytest.approx(-torch.tensor(2.0).log().item())


# ---- Lp-Reg --------------------------------------------------------------------------------------------------------------------------

#: probabilities 0.6, 0.3, 0.07, 0.03
SPREAD = torch.tensor([0.6, 0.3, 0.07, 0.03], dtype=torch.float64).log()


def protected(anchor: LowProbability, edge: float, advantage: float = -1.0) -> tuple[list[float], torch.Tensor]:
    logits = SPREAD.clone().requires_grad_()
    scored = every_token(logits, advantage, rare_below=torch.full((4,), edge, dtype=torch.float64).log())
    penalty = anchor.penalty(scored, {})
    gradient = torch.autograd.grad(penalty.sum(), logits)[0] if penalty.requires_grad else torch.zeros(4, dtype=torch.float64)
    assert torch.equal(anchor.measures(scored)["protected"], (penalty != 0).double()) or not penalty.any()
    return penalty.detach().squeeze(1).tolist(), gradient


@pytest.mark.parametrize("anchor", [LowProbability(2.0, filter="fixed", kappa=0.05), LowProbability(2.0, kappa=0.1)], ids=str)
def test_value_and_gradient_in_closed_form(anchor: LowProbability) -> None:
    # the token of 0.03 is noise (below 0.05, or 0.1 * 0.6): Z = 0.97, proxy = pi / 0.97; rare are those below 0.1
    penalty, gradient = protected(anchor, edge=0.1)
    z = torch.tensor(0.97, dtype=torch.float64)
    assert penalty == pytest.approx([0, 0, -2 * float(z.log()), 0])
    pi = SPREAD.softmax(-1)
    proxy = torch.tensor([0.6, 0.3, 0.07, 0.0], dtype=torch.float64) / z
    assert torch.allclose(gradient, 2 * (pi - proxy))


def test_whom_it_protects() -> None:
    anchor = LowProbability(kappa=0.1)
    assert [p != 0 for p in protected(anchor, edge=0.5)[0]] == [False, True, True, False]  # rare, and no noise
    assert not any(protected(anchor, edge=0.5, advantage=1.0)[0])  # nobody who was praised
    assert not any(protected(anchor, edge=0.5, advantage=0.0)[0])
    assert not any(protected(anchor, edge=0.01)[0])  # nobody is rare
    # nothing is noise: Z = 1, and neither value nor gradient is left
    penalty, gradient = protected(LowProbability(kappa=0.0), edge=0.5)
    assert penalty == pytest.approx([0.0] * 4, abs=1e-12) and float(gradient.abs().max()) < 1e-12


def test_rare_is_what_lies_below_the_batchs_lowest_share() -> None:
    likely = torch.tensor([[0.0, -1.0, -2.0], [0.0, -3.0, -9.0], [0.0, -4.0, -5.0]])
    labels = torch.tensor([[-100, 1, 1], [-100, 1, -100], [-100, 1, 1]])
    batch = {"labels": labels, "behaviour": likely, "judged": torch.tensor([True, True, True])}
    mask = labels[:, 1:] != -100
    # judged tokens: -5, -4, -3, -2, -1
    for share, edge in ((0.0, -5.0), (0.2, -4.0), (0.39, -4.0), (0.6, -2.0), (1.0, torch.inf)):
        assert LowProbability(share=share).prepare(batch, mask)["rare_below"].tolist() == [edge] * 3
    batch["judged"][2] = False
    assert LowProbability(share=0.4).prepare(batch, mask)["rare_below"].tolist() == [-2.0] * 3
    assert LowProbability(share=0.4).prepare({**batch, "old": likely - 1}, mask)["rare_below"].tolist() == [-3.0] * 3


@pytest.mark.parametrize(
    "anchor",
    [
        Kl(),
        Kl(0.1, "k2"),
        Kl(0.1, "k1", True),
        Kl(0.1, "k3", True),
        Kl(0.1, "k1", corrected=True),
        Entropy(),
        LowProbability(share=0.4),
        LowProbability(share=0.9, filter="fixed"),
    ],
    ids=str,
)
def test_contract(anchor: Anchor) -> None:
    check_anchor(anchor)


def test_what_is_refused() -> None:
    for wrong, message in (
        (lambda: Kl(-1.0), "coefficient must be >= 0"), (lambda: Kl(1.0, "k4"), "estimator must be k1, k2 or k3, found 'k4'"),
        (lambda: Entropy(-1.0), "coefficient must be >= 0"), (lambda: LowProbability(share=2.0), "share must lie in"),
        (lambda: LowProbability(kappa=1.0), "kappa must lie in"), (lambda: LowProbability(filter="top"), "filter must be min_p or fixed"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()
