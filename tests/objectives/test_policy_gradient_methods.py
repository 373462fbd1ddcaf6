"""The named methods: what each is made of, its defaults, its identities and limits, and the objectives' contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_rollouts import POLICY, WRITER, gradient_of, loss_of, rollouts
from small_texts import GROUPS, Bigram, bigram, log_prob

from outlay.advantages import BestOnly, Group, LeaveOneOut, Shifted, ToGo, Whitened, baseline_for
from outlay.anchors import Kl, LowProbability
from outlay.catalog import describe, listing, make, methods_of
from outlay.denominators import Behaviour, Current, Old
from outlay.likelihoods import Token, WholeSequence
from outlay.objectives import (
    Cispo,
    Dapo,
    Dler,
    DrGrpo,
    Grpo,
    Gspo,
    LitePpo,
    LpReg,
    NextToken,
    PolicyGradient,
    Raft,
    RaftPlusPlus,
    Reinforce,
    ReinforcePlusPlus,
    Remax,
    Rloo,
    Topr,
)
from outlay.objectives.named import Named
from outlay.stabilisers import Clip, Tapered, Unmasked
from outlay.testing import check_objective

JUDGED = [row for row in range(8) if row != 5]
ON_POLICY = rollouts(POLICY)


def start() -> Bigram:
    return bigram(3)


@pytest.mark.parametrize(
    ("named", "setting"),
    [
        (ReinforcePlusPlus(), PolicyGradient(Whitened(ToGo()), anchors=(Kl(0.01, "k1", True),))),
        (Rloo(kl=0.2), PolicyGradient(LeaveOneOut(), likelihood=WholeSequence(), aggregate="sequence_mean", anchors=(Kl(0.2, "k1", True),))),
        (Dapo(), PolicyGradient(stabiliser=Clip(0.2, 0.28))),
        (LitePpo(), PolicyGradient(Group("group", "batch"))),
        (Topr(0.3), PolicyGradient(Shifted(0.3), Behaviour(), WholeSequence(), Tapered(), "sequence_mean")),
        (Dler(), PolicyGradient(Whitened(Group("group", "none")), stabiliser=Clip(0.2, 0.28, 10.0), anchors=(Kl(5e-4),))),
        (LpReg(), PolicyGradient(stabiliser=Clip(1.0, 9.0), anchors=(LowProbability(1.0, 0.01, "min_p", 0.02),))),
        (Raft(), PolicyGradient(BestOnly(), Current(), Token(), Unmasked(), silent="drop")),
    ],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_what_they_are_made_of(named: Any, setting: PolicyGradient) -> None:
    assert named.estimator() == setting
    assert torch.equal(gradient_of(named.bind(start), rollouts()), gradient_of(setting.bind(start), rollouts()))


NAMED = [cls for cls in methods_of("objectives").values() if issubclass(cls, Named)]


@pytest.mark.parametrize("cls", NAMED, ids=lambda cls: cls.__name__)
def test_every_named_method_is_described_and_built_again(cls: type) -> None:
    one = cls()
    ((name, fields),) = describe(one).items()
    assert make(name, **fields) == one and hash(one) == hash(make(name, **fields))
    entry = next(entry for entry in listing("objectives") if entry.name == name)
    assert entry.title and entry.summary and all(f"{field.name}:" in (cls.__doc__ or "") for field in entry.fields)
    for field in ("clip", "low"):
        if any(each.name == field for each in entry.fields):
            with pytest.raises(ValueError, match="low must lie in"):
                cls(**{field: 2.0})


@pytest.mark.parametrize(
    "objective",
    [Grpo(), DrGrpo(), ReinforcePlusPlus(), Rloo(), Dapo(), LitePpo(), Gspo(), Gspo(0.2, 0.2), Cispo(), Topr(0.35), Topr(0.35, "token"), Dler(),
     LpReg(share=0.4, kappa=0.1), RaftPlusPlus(above=0.4), Grpo(denominator=Old(cap=1.05)), Dapo(denominator=Old("mask", "sequence"))],
    ids=str,
)  # fmt: skip
def test_contract(objective: Any) -> None:
    check_objective(objective, POLICY, rollouts(), frozen=start(), differences=not isinstance(objective, LpReg))


@pytest.mark.parametrize("objective", [Reinforce(), Reinforce("group", 0.1), Remax(), Raft()], ids=str)
def test_contract_without_a_ratio(objective: Any) -> None:
    parts = objective.estimator()

    def likelihood(model: Any, batch: Any) -> torch.Tensor:
        from outlay.sequences import token_log_probs

        return -parts.aggregated(token_log_probs(model, batch) * batch["advantage"][:, 1:], batch)

    check_objective(objective, POLICY, rollouts(), frozen=start(), gradient_of=likelihood)


# ---- on policy, the same gradient ----------------------------------------------------------------------------------------------------


def test_on_policy_these_are_one_method() -> None:
    expected = gradient_of(PolicyGradient(Group(), Current(), Token(), Unmasked()), ON_POLICY)
    for objective in (Dapo(), Cispo(), LpReg(coefficient=0.0), Dapo(denominator=Old())):
        assert torch.allclose(gradient_of(objective, ON_POLICY), expected, atol=1e-12), objective
    assert torch.allclose(gradient_of(Grpo(kl=0.0), ON_POLICY), gradient_of(Gspo(), ON_POLICY), atol=1e-12)
    leave_one_out = PolicyGradient(LeaveOneOut(), Current(), Token(), Unmasked(), "sequence_sum")
    assert torch.allclose(gradient_of(Rloo(kl=0.0), ON_POLICY), gradient_of(leave_one_out, ON_POLICY), atol=1e-12)


def test_dr_grpo_is_reinforce_with_the_groups_mean_in_the_scale_of_a_token() -> None:
    assert torch.allclose(5 * gradient_of(DrGrpo(), ON_POLICY), gradient_of(Reinforce("group"), ON_POLICY), atol=1e-12)
    assert torch.allclose(gradient_of(DrGrpo(length=10), ON_POLICY) * 2, gradient_of(DrGrpo(), ON_POLICY), atol=1e-12)


def test_lp_reg_without_rare_tokens_is_grpo_with_its_clip() -> None:
    free = PolicyGradient(stabiliser=Clip(1.0, 9.0))
    assert torch.equal(gradient_of(LpReg(share=0.0), rollouts()), gradient_of(free, rollouts()))
    assert not torch.allclose(gradient_of(LpReg(share=0.5, kappa=0.1), rollouts()), gradient_of(free, rollouts()))


# ---- TOPR ----------------------------------------------------------------------------------------------------------------------------

SIGNS = [1.0, -1.0, 1.0, -1.0, -1.0, 0.0, 1.0, -1.0]


def scored(rows: list[int], weight: Callable[[torch.Tensor], Any]) -> torch.Tensor:
    """Return the mean over the judged answers of weight(z) R log pi(y), with z = pi(y) / mu(y) held fixed."""
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        now, written = log_prob(POLICY, *GROUPS[row]).sum(), log_prob(WRITER, *GROUPS[row]).sum()
        total = total + weight((now - written).exp().detach()) * SIGNS[row] * now
    return total / len(JUDGED)


def test_topr_by_hand() -> None:
    batch = rollouts(rewards=SIGNS)
    good, bad = [i for i in JUDGED if SIGNS[i] > 0], [i for i in JUDGED if SIGNS[i] < 0]
    for objective, of_good, of_bad in (
        (Topr(), lambda z: 1.0, lambda z: z.clamp(max=1.0)),
        (Topr(good=(1, 1), bad=(1, 1)), lambda z: 1.0, lambda z: 1.0),
        (Topr(bad=(0, 0)), lambda z: 1.0, lambda z: 0.0),
        (Topr(good=(0, 1)), lambda z: z.clamp(max=1.0), lambda z: z.clamp(max=1.0)),
        (Topr(good=(0, math.inf), bad=(0, math.inf)), lambda z: z, lambda z: z),
    ):
        (expected,) = torch.autograd.grad(-(scored(good, of_good) + scored(bad, of_bad)), [POLICY.table])
        assert torch.allclose(gradient_of(objective, batch), expected, atol=1e-12), objective


def test_topr_on_policy_is_reinforce_and_on_good_answers_alone_weighted_fine_tuning() -> None:
    reinforce = PolicyGradient(Shifted(), Current(), Token(), Unmasked(), "sequence_sum")
    on_policy = {**ON_POLICY, "reward": torch.tensor(SIGNS)}
    for level in ("sequence", "token"):
        assert torch.allclose(gradient_of(Topr(level=level), on_policy), gradient_of(reinforce, on_policy), atol=1e-12)  # type: ignore[arg-type]
        good = rollouts(rewards=[abs(sign) for sign in SIGNS])
        assert torch.allclose(gradient_of(Topr(level=level), good), gradient_of(reinforce, good), atol=1e-12)  # type: ignore[arg-type]


def test_a_bad_answer_that_has_become_unlikely_teaches_no_more() -> None:
    sizes = []
    for lead in (0.0, 3.0, 6.0, 40.0):
        batch = rollouts(POLICY, rewards=[-1.0] * 8)
        batch["behaviour"] = torch.where(batch["behaviour"] != 0, batch["behaviour"] + lead, batch["behaviour"])
        sizes.append(float(gradient_of(Topr(), batch).abs().max()))
    assert sizes[0] > 10 * sizes[1] > 100 * sizes[2] and sizes[3] < 1e-8
    likelier = rollouts(POLICY, rewards=[-1.0] * 8)
    likelier["behaviour"] = torch.where(likelier["behaviour"] != 0, likelier["behaviour"] - 3, likelier["behaviour"])
    assert torch.allclose(gradient_of(Topr(), likelier), gradient_of(Topr(), rollouts(POLICY, rewards=[-1.0] * 8)), atol=1e-12)


def test_the_baseline_makes_good_answers_count_as_if_they_were_rarer() -> None:
    batch = rollouts(POLICY, rewards=[1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
    batch["judged"][:] = True
    objective = Topr(baseline=baseline_for(0.5, 0.1))
    ready = objective.prepare(POLICY, batch, {})
    at = (torch.arange(8), (batch["labels"] != -100).long().argmax(1))
    worth = ready["advantage"][at]
    assert float(worth[worth > 0].sum() / worth.abs().sum()) == pytest.approx(0.1)


# ---- ReMax ---------------------------------------------------------------------------------------------------------------------------


def bandit(logits: torch.Tensor, rewards: torch.Tensor) -> tuple[Bigram, dict[str, torch.Tensor], torch.Tensor]:
    """Return a policy over one-token answers, every answer as a row, and their probabilities."""
    count = len(logits)
    model = Bigram(torch.zeros(count + 1, count))
    model.table.data[count] = logits
    ids = torch.stack([torch.full((count,), count), torch.arange(count)], 1)
    labels = ids.clone()
    labels[:, 0] = -100
    batch = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "group": torch.zeros(count, dtype=torch.long),
        "reward": rewards, "greedy_reward": rewards[logits.argmax()].expand(count).clone(),
        "behaviour": torch.nn.functional.pad(logits.log_softmax(-1)[:, None], (1, 0)),
    }  # fmt: skip
    return model, batch, logits.softmax(-1)


LOGITS = torch.tensor([0.2, 1.5, -0.7, 0.9], dtype=torch.float64)
WORTH = torch.tensor([1.0, 0.2, 3.0, -0.5], dtype=torch.float64)


def exact() -> torch.Tensor:
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad((logits.softmax(-1) * WORTH).sum(), logits)[0]


def one_at_a_time(objective: Any, offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradient that each single sampled answer gives (answers, answers), and the answers' probabilities."""
    model, batch, likely = bandit(LOGITS, WORTH + offset)
    prepared = objective.prepare(model, batch, {})
    each = []
    for row in range(len(LOGITS)):
        piece = {name: column[row : row + 1] for name, column in prepared.items()}
        each.append(-torch.autograd.grad(objective(model, piece, {})[0], [model.table])[0][-1])
    return torch.stack(each), likely


def test_remax_is_unbiased_and_steadier_than_no_baseline() -> None:
    gradients, likely = one_at_a_time(Remax(kl=0.0, discount=1.0))
    assert torch.allclose((likely[:, None] * gradients).sum(0), exact())
    plain, _ = one_at_a_time(Reinforce("none"))
    assert torch.allclose((likely[:, None] * plain).sum(0), exact())

    def variance(each: torch.Tensor) -> float:
        return float((likely * (each - exact()).square().sum(1)).sum())

    # with all rewards far from 0 the greedy answer's is a good guess of their mean, 0 is not
    for offset in (10.0, -10.0):
        far, _ = one_at_a_time(Remax(kl=0.0, discount=1.0, reward_clip=5.0), offset)
        bare, _ = one_at_a_time(Reinforce("none"), offset)
        assert torch.allclose(far, gradients)  # a constant in all rewards changes nothing
        assert variance(far) < variance(bare) / 10


def test_remax_does_nothing_where_the_policy_is_sure() -> None:
    model, batch, _ = bandit(LOGITS, WORTH)
    greedy = int(LOGITS.argmax())
    row = {name: column[greedy : greedy + 1] for name, column in batch.items()}
    assert not gradient_of(Remax(kl=0.0), row, model).any()
    clipped = {**batch, "reward": batch["reward"] * 100}
    assert float(Remax(kl=0.0).prepare(model, clipped, {})["advantage"].max()) == 5.0


def test_remax_needs_the_greedy_answer_and_a_frozen_model() -> None:
    assert Remax().needs_greedy and not Grpo().needs_greedy
    assert Remax().passes == 2.0 and Remax(kl=0.0).passes == 0.0
    assert dict(Remax().knobs) == {"kl": 0.05}


def test_leave_one_out_is_unbiased_too() -> None:
    # over all pairs of answers drawn independently
    model, batch, likely = bandit(LOGITS, WORTH)
    total = torch.zeros(4, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            pair = {name: column[[i, j]] for name, column in batch.items()}
            pair["greedy_reward"] = pair["greedy_reward"][:2]
            total -= likely[i] * likely[j] * gradient_of(Rloo(kl=0.0), pair, model)[-1]
    assert torch.allclose(total, exact())


# ---- RAFT ----------------------------------------------------------------------------------------------------------------------------


def test_raft_is_fine_tuning_on_the_best_answers() -> None:
    batch = rollouts()
    best = {name: column[[0, 3, 6]] for name, column in batch.items()}
    (expected,) = torch.autograd.grad(NextToken()(POLICY, best, {})[0], [POLICY.table])
    assert torch.allclose(gradient_of(Raft(), batch), expected, atol=1e-12)
    assert Raft().prepare(POLICY, batch, {})["group"].tolist() == [3, 5, 9]
    assert Raft(above=0.6).prepare(POLICY, batch, {})["group"].tolist() == [3, 5]


def test_raft_plus_plus_is_a_clipped_ratio_on_good_answers() -> None:
    batch = rollouts()
    assert RaftPlusPlus(above=0.4).prepare(POLICY, batch, {})["reward"].tolist() == pytest.approx([1.0, 0.9, 0.5, 0.5])
    kept = [GROUPS[i] for i in (0, 3, 4, 6)]
    ratios = torch.cat([(log_prob(POLICY, *row) - log_prob(WRITER, *row)).exp() for row in kept])
    found = loss_of(RaftPlusPlus(above=0.4, high=0.05), batch)
    assert float(found.detach()) == pytest.approx(-float(ratios.clamp(max=1.05).mean().detach()))


def test_reinforce_plus_plus_discounts_the_divergence_to_come() -> None:
    objective = ReinforcePlusPlus(kl=0.3).bind(start)
    ready = objective.prepare(POLICY, rollouts(), {})
    raw = []
    for row in JUDGED:
        apart = (log_prob(POLICY, *GROUPS[row]) - log_prob(start(), *GROUPS[row])).detach()
        raw += [float(rollouts()["reward"][row] - 0.3 * apart[t:].sum()) for t in range(len(apart))]
    tokens = torch.tensor(raw, dtype=torch.float64)
    own = (ready["labels"] != -100) & ready["judged"][:, None]
    assert torch.allclose(ready["advantage"][own], (tokens - tokens.mean()) / tokens.std(), atol=1e-6)
