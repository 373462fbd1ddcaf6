"""The estimator: its gradient against a formula a line, the identities between methods, what it measures, and what it does with far ratios."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_rollouts import POLICY, WRITER, gradient_of, loss_of, rollouts
from small_texts import GROUPS, Bigram, bigram, log_prob

from outlay.advantages import Generalised, Greedy, Group, PositiveOnly, Shifted, ToGo
from outlay.anchors import Entropy, Kl, LowProbability
from outlay.catalog import make
from outlay.denominators import Behaviour, Current, Old, Unknown
from outlay.errors import InputError
from outlay.likelihoods import Sequence, Token, WholeSequence
from outlay.objectives import DrGrpo, Grpo, NextToken, PolicyGradient, Reinforce
from outlay.objectives.base import Attaches, Binds, Prepares
from outlay.objectives.policy_gradient import reference_policy_gradient, taught
from outlay.sequences import token_log_probs
from outlay.stabilisers import Clip, Tapered, Truncated, Unmasked
from outlay.testing import check_objective

AGGREGATES = ("token_mean", "sequence_mean", "sequence_sum", "constant")
JUDGED = [row for row in range(8) if row != 5]
LENGTHS = [len(answer) for _, answer in GROUPS]


# ---- the gradient --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize(
    "denominator", [Current(), Behaviour(), Old(cap=1.1), Old("mask", cap=1.2), Old(level="sequence", cap=1.1), Unknown()], ids=str
)
@pytest.mark.parametrize("stabiliser", [Unmasked(), Clip(0.05, 0.1), Clip(0.05, 0.1, 1.2)], ids=str)
def test_the_gradient_is_the_promised_one(aggregate: Any, denominator: Any, stabiliser: Any) -> None:
    parts = PolicyGradient(Group(), denominator, Token(), stabiliser, aggregate)
    batch = parts.prepare(bigram(2), rollouts(), {})  # old is another model's
    (found,) = torch.autograd.grad(parts(POLICY, batch, {})[0], [POLICY.table])
    log_probs = token_log_probs(POLICY, batch)
    wanted = reference_policy_gradient(parts, log_probs.detach(), batch)
    assert bool(wanted.any())
    (expected,) = torch.autograd.grad((log_probs * wanted).sum(), [POLICY.table])
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_loss_by_hand(aggregate: Any) -> None:
    parts = PolicyGradient(Group(std="none"), Behaviour(), Token(), Unmasked(), aggregate)
    worth = torch.tensor([0.5, -0.5, 0.2 - 1.6 / 3, 0.9 - 1.6 / 3, 0.5 - 1.6 / 3, 0, 0.25, -0.25], dtype=torch.float64)
    per_row = [-(log_prob(POLICY, *row) - log_prob(WRITER, *row)).exp() * a for row, a in zip(GROUPS, worth, strict=True)]
    expected = {
        "token_mean": sum(per_row[i].sum() for i in JUDGED) / sum(LENGTHS[i] for i in JUDGED),
        "sequence_mean": sum(per_row[i].mean() for i in JUDGED) / 7,
        "sequence_sum": sum(per_row[i].sum() for i in JUDGED) / 7,
        "constant": sum(per_row[i].sum() / 5 for i in JUDGED) / 7,
    }[aggregate]
    assert float(loss_of(parts, rollouts())) == pytest.approx(float(expected), abs=1e-12)
    assert parts.weight(rollouts()) == (sum(LENGTHS[i] for i in JUDGED) if aggregate == "token_mean" else 7)


def test_the_constant_is_the_limit_or_a_number() -> None:
    five = loss_of(PolicyGradient(aggregate="constant"), rollouts())
    assert float(loss_of(PolicyGradient(aggregate="constant", length=10), rollouts())) == pytest.approx(float(five) / 2)


def test_unjudged_answers_have_no_influence() -> None:
    one, other = rollouts(), rollouts()
    other["reward"][5] = -1e6
    other["behaviour"][5] -= 3.0
    for aggregate in AGGREGATES:
        parts = PolicyGradient(denominator=Old(), aggregate=aggregate, anchors=(Entropy(),))
        assert torch.equal(gradient_of(parts, one), gradient_of(parts, other))
    kept = {name: column[JUDGED] for name, column in one.items()}
    assert torch.allclose(gradient_of(PolicyGradient(), one), gradient_of(PolicyGradient(), kept))


def test_a_batch_that_nobody_could_judge_teaches_nothing() -> None:
    batch = {**rollouts(), "judged": torch.zeros(8, dtype=torch.bool)}
    for aggregate in AGGREGATES:
        parts = PolicyGradient(aggregate=aggregate)
        assert parts.weight(batch) == 0 and not gradient_of(parts, batch).any()


# ---- identities ----------------------------------------------------------------------------------------------------------------------

ON_POLICY = rollouts(POLICY)


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("advantage", [Group(), Group("batch", "none"), Shifted(0.3), ToGo(0.9)], ids=str)
def test_on_policy_ratio_clip_and_truncation_make_no_difference(aggregate: Any, advantage: Any) -> None:
    reinforce = PolicyGradient(advantage, Current(), Token(), Unmasked(), aggregate)
    expected = gradient_of(reinforce, ON_POLICY)
    for denominator in (Behaviour(), Old()):
        for stabiliser in (Unmasked(), Clip(), Clip(0.2, 0.28, 10.0), Truncated(), Tapered()):
            parts = PolicyGradient(advantage, denominator, Token(), stabiliser, aggregate)
            assert torch.allclose(gradient_of(parts, ON_POLICY), expected, atol=1e-12), (denominator, stabiliser)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_on_policy_the_answers_normalised_likelihood_is_its_tokens(aggregate: Any) -> None:
    token = PolicyGradient(Group(), Behaviour(), Token(), Clip(), aggregate)
    sequence = PolicyGradient(Group(), Behaviour(), Sequence(), Clip(), aggregate)
    assert torch.allclose(gradient_of(token, ON_POLICY), gradient_of(sequence, ON_POLICY), atol=1e-12)


def test_on_policy_the_whole_answers_likelihood_is_the_sum_of_its_tokens() -> None:
    token = PolicyGradient(Group(), Behaviour(), Token(), Unmasked(), "sequence_sum")
    whole = PolicyGradient(Group(), Behaviour(), WholeSequence(), Unmasked(), "sequence_mean")
    assert torch.allclose(gradient_of(token, ON_POLICY), gradient_of(whole, ON_POLICY), atol=1e-12)


def test_supervised_fine_tuning_is_a_setting() -> None:
    # denominator sg(pi), advantage 1, no mask
    batch = rollouts(rewards=[1.0] * 8)
    batch["judged"][:] = True
    setting = PolicyGradient(PositiveOnly(), Current(), Token(), Unmasked(), "token_mean")
    loss = NextToken()(POLICY, batch, {})[0]
    assert torch.allclose(gradient_of(setting, batch), torch.autograd.grad(loss, [POLICY.table])[0], atol=1e-12)
    assert setting.weight(batch) == NextToken().weight(batch)
    # an unknown writer: the gradient of the probability itself
    unknown = PolicyGradient(PositiveOnly(), Unknown(), Token(), Unmasked(), "sequence_sum")
    assert float(loss_of(unknown, batch)) == pytest.approx(-sum(float(log_prob(POLICY, *row).exp().sum()) for row in GROUPS) / 8)


@pytest.mark.parametrize("good", [1, 3, 6])
def test_grpo_weighs_a_question_by_the_root_of_p_one_minus_p(good: int) -> None:
    # p A+ s+ + (1 - p) A- s- = sqrt(p (1 - p)) (s+ - s-), A+ = sqrt((1 - p) / p), A- = -sqrt(p / (1 - p))
    p = good / 8
    batch = rollouts(POLICY, rewards=[1.0] * good + [0.0] * (8 - good))
    batch["group"][:], batch["judged"][:] = 0, True
    grpo = PolicyGradient(Group(unbiased=False, epsilon=0.0), Current(), Token(), Unmasked(), "sequence_mean")
    advantages = grpo.prepare(POLICY, batch, {})["advantage"][taught_at(batch)]
    assert advantages[:good].tolist() == pytest.approx([math.sqrt((1 - p) / p)] * good)
    assert advantages[good:].tolist() == pytest.approx([-math.sqrt(p / (1 - p))] * (8 - good))
    scores = torch.stack([log_prob(POLICY, *row).mean() for row in GROUPS])
    gap = math.sqrt(p * (1 - p)) * (scores[:good].mean() - scores[good:].mean())
    (expected,) = torch.autograd.grad(-gap, [POLICY.table])
    assert torch.allclose(gradient_of(grpo, batch), expected, atol=1e-12)


def taught_at(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where each row's first answer token is."""
    first = (batch["labels"] != -100).long().argmax(1)
    return torch.arange(len(first)), first


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_what_scaling_rewards_does(scale: float, offset: float) -> None:
    batch = rollouts()
    other = {**batch, "reward": batch["reward"] * scale + offset}
    scaled = PolicyGradient(Group(epsilon=0.0), aggregate="sequence_mean")
    assert torch.allclose(gradient_of(scaled, batch), gradient_of(scaled, other), atol=1e-9)
    plain = PolicyGradient(Group(std="none"), aggregate="sequence_mean")
    assert torch.allclose(scale * gradient_of(plain, batch), gradient_of(plain, other), atol=1e-9)


def test_named_methods_are_settings() -> None:
    batch = rollouts()
    for named, setting in (
        (Grpo(kl=0.0), PolicyGradient(Group(), Behaviour(), Token(), Clip(), "sequence_mean")),
        (DrGrpo(), PolicyGradient(Group("group", "none"), Behaviour(), Token(), Clip(), "constant")),
        (Reinforce(), PolicyGradient(Group("batch", "none"), Current(), Token(), Unmasked(), "sequence_sum")),
        (Reinforce("none"), PolicyGradient(Shifted(), Current(), Token(), Unmasked(), "sequence_sum")),
    ):
        assert torch.equal(gradient_of(named, batch), gradient_of(setting, batch))
        assert (named.weight(batch), named.passes, dict(named.knobs)) == (setting.weight(batch), setting.passes, dict(setting.knobs))


# ---- anchors and rewards of tokens ---------------------------------------------------------------------------------------------------


def test_a_divergence_in_the_loss_is_added_and_turned_by_its_knob() -> None:
    reference = bigram(3)
    held = PolicyGradient(anchors=(Kl(0.5, "k3"),), aggregate="sequence_sum").bind(lambda: reference)
    batch = held.prepare(POLICY, rollouts(), {})
    free = PolicyGradient(aggregate="sequence_sum")
    apart = [log_prob(reference, *GROUPS[i]) - log_prob(POLICY, *GROUPS[i]) for i in JUDGED]
    k3 = sum((a.exp() - 1 - a).sum() for a in apart) / 7
    for given_, weight in (({}, 0.5), ({"kl": 2.0}, 2.0)):
        loss, measures = held(POLICY, batch, given_)
        assert float(loss) == pytest.approx(float(free(POLICY, batch, {})[0] + weight * k3), abs=1e-12)
    assert float(measures["kl"]) == pytest.approx(float(sum((a.exp() - 1 - a).mean() for a in apart) / 7))
    assert dict(held.knobs) == {"kl": 0.5}


def test_a_divergence_in_the_reward_is_taken_from_every_token_once() -> None:
    reference = bigram(3)
    shaped = PolicyGradient(ToGo(), Current(), Token(), Unmasked(), "sequence_sum", anchors=(Kl(0.5, "k1", True),)).bind(lambda: reference)
    batch = shaped.prepare(POLICY, rollouts(), {"kl": 0.25})
    for row in JUDGED:
        prompt, answer = GROUPS[row]
        apart = (log_prob(POLICY, prompt, answer) - log_prob(reference, prompt, answer)).detach()
        to_go = [float(batch["reward"][row]) - 0.25 * float(apart[t:].sum()) for t in range(len(answer))]
        assert batch["advantage"][row, len(prompt) : len(prompt) + len(answer)].tolist() == pytest.approx(to_go)
    loss, measures = shaped(POLICY, batch, {"kl": 99.0})
    assert "kl" in measures and float(loss) == float(shaped(POLICY, batch, {})[0])
    assert (shaped.passes, PolicyGradient(denominator=Old(), anchors=(Kl(),)).passes, PolicyGradient().passes) == (2.0, 2.0, 0.0)


def test_preparing_again_gives_the_same_and_leaves_the_model_as_it_was() -> None:
    model = bigram(0).train()
    parts = PolicyGradient(denominator=Old(), anchors=(Kl(in_reward=True),)).bind(lambda: bigram(3))
    raw = rollouts()
    names = set(raw)
    once = parts.prepare(model, raw, {})
    assert set(raw) == names and model.training
    again = parts.prepare(model, once, {})
    assert set(once) == names | {"old", "reference", "advantage"}
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not any(column.requires_grad for column in once.values())


class Unsteady(Bigram):
    """Twice as sure while it is trained, as if dropout were at work."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        found = super().forward(input_ids, attention_mask)
        found.logits = found.logits * (2 if self.training else 1)
        return found


def test_a_batch_is_prepared_in_evaluation_mode() -> None:
    parts = PolicyGradient(denominator=Old(), anchors=(Kl(in_reward=True),)).bind(lambda: bigram(3))
    model = Unsteady(POLICY.table.detach()).train()
    found, expected = parts.prepare(model, rollouts(), {}), parts.prepare(POLICY, rollouts(), {})
    assert model.training and all(torch.equal(found[name], expected[name]) for name in ("old", "advantage"))


def test_temperature_is_that_of_the_answers() -> None:
    warm, cold = rollouts(temperature=2.0), rollouts(temperature=1.0)
    half = Bigram(POLICY.table.detach() / 2)
    parts = PolicyGradient(aggregate="sequence_sum")
    at_two = {**cold, "behaviour": warm["behaviour"]}
    assert float(loss_of(parts, warm)) == pytest.approx(float(loss_of(parts, at_two, half)))


def test_answers_without_an_advantage_may_be_dropped() -> None:
    batch = rollouts(rewards=[1.0, 0.0, 0.5, 0.5, 0.5, 0.0, 1.0, 1.0])
    kept = PolicyGradient(silent="drop").prepare(POLICY, batch, {})
    assert kept["group"].tolist() == [3, 3]
    whole = PolicyGradient(aggregate="sequence_sum")
    assert torch.allclose(gradient_of(PolicyGradient(aggregate="sequence_sum", silent="drop"), batch) * 2 / 7, gradient_of(whole, batch))
    nothing = rollouts(rewards=[1.0] * 8)
    assert len(PolicyGradient(silent="drop").prepare(POLICY, nothing, {})["group"]) == 8


# ---- measures ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_measures_by_hand(aggregate: Any) -> None:
    parts = PolicyGradient(Group(), Old(cap=1.05), Token(), Clip(0.1, 0.1), aggregate)
    other = bigram(2)
    batch = parts.prepare(other, rollouts(), {})
    _, measures = parts(POLICY, batch, {})
    rows = POLICY.table.detach().log_softmax(-1)
    entropy = -(rows.exp() * rows).sum(1)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in ("clip_fraction", "approx_kl", "entropy", "ratio", "correction")}
    for row in JUDGED:
        prompt, answer = GROUPS[row]
        now, old, written = (log_prob(model, prompt, answer).detach() for model in (POLICY, other, WRITER))
        ratio, better = (now - old).exp(), batch["advantage"][row, len(prompt)]
        seen["ratio"].append(ratio)
        seen["clip_fraction"].append((((better > 0) & (ratio > 1.1)) | ((better < 0) & (ratio < 0.9))).double())
        seen["approx_kl"].append(ratio - 1 - (now - old))
        seen["entropy"].append(torch.stack([entropy[before] for before in (prompt[-1], *answer[:-1])]))
        seen["correction"].append((old - written).exp().clamp(max=1.05))
    assert set(measures) == set(seen)
    for name, values in seen.items():
        expected = torch.cat(values).mean() if aggregate == "token_mean" else torch.stack([each.mean() for each in values]).mean()
        assert float(measures[name]) == pytest.approx(float(expected)), name
    assert 0 < float(measures["clip_fraction"]) < 1


# ---- far ratios ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", [Token(), Sequence(), WholeSequence()], ids=str)
@pytest.mark.parametrize("stabiliser", [Unmasked(), Clip(0.2, 0.28, 10.0), Truncated(), Tapered()], ids=str)
@pytest.mark.parametrize("far", [-500.0, -30.0, 30.0, 500.0])
def test_far_ratios_stay_finite_in_single_precision(likelihood: Any, stabiliser: Any, far: float) -> None:
    single = Bigram(POLICY.table.detach()).float()
    batch = {name: column.float() if column.is_floating_point() else column for name, column in rollouts().items()}
    batch["behaviour"] = torch.where(batch["behaviour"] != 0, batch["behaviour"] - far, batch["behaviour"])
    for denominator in (Behaviour(), Old(), Old("mask", "sequence")):
        parts = PolicyGradient(Group(), denominator, likelihood, stabiliser, anchors=(Kl(), Entropy(), LowProbability(share=0.5)))
        bound = parts.bind(lambda: Bigram(40 * bigram(3).table.detach()).float())
        ready = bound.prepare(single, batch, {})
        loss, measures = bound(single, ready, {})
        (gradient,) = torch.autograd.grad(loss, [single.table])
        assert bool(loss.isfinite()) and bool(gradient.isfinite().all()), denominator
        assert all(bool(value.isfinite()) for value in measures.values()), measures


# ---- contract and errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize(
    "parts",
    [
        PolicyGradient(), PolicyGradient(Group("batch", "batch"), Old(cap=1.1), Token(), Clip(0.05, 0.1)),
        PolicyGradient(Shifted(0.35), Behaviour(), WholeSequence(), Tapered()), PolicyGradient(ToGo(), Behaviour(), Token(), Truncated(cap=1.1)),
        PolicyGradient(Greedy(), Unknown(), Token(), Unmasked()),
        PolicyGradient(anchors=(Kl(0.3), Entropy(0.1))), PolicyGradient(ToGo(), anchors=(Kl(0.3, "k1", True),)),
    ],
    ids=str,
)  # fmt: skip
def test_contract(aggregate: Any, parts: PolicyGradient) -> None:
    check_objective(dataclasses.replace(parts, aggregate=aggregate), POLICY, rollouts())


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_contract_where_parts_are_held_fixed(aggregate: Any) -> None:
    # of sg(pi) the value does not change with pi; its gradient is that of the log likelihood
    parts = PolicyGradient(Group(), Current(), Token(), Unmasked(), aggregate)

    def likelihood(model: Any, batch: Any) -> torch.Tensor:
        return -parts.aggregated(token_log_probs(model, batch) * batch["advantage"][:, 1:], batch)

    check_objective(parts, POLICY, rollouts(), gradient_of=likelihood)


def test_what_it_is() -> None:
    assert isinstance(PolicyGradient(), Prepares) and isinstance(PolicyGradient(), Binds) and not isinstance(PolicyGradient(), Attaches)
    assert PolicyGradient(Greedy()).needs_greedy and not PolicyGradient().needs_greedy
    assert bool(taught(rollouts())[5].any()) is False


def test_what_is_refused() -> None:
    for wrong, message in (
        (
            lambda: PolicyGradient(aggregate="mean"),
            "aggregate must be one of token_mean, sequence_mean, sequence_sum, constant, found 'mean'",
        ),  # type: ignore[arg-type]
        (lambda: PolicyGradient(length=0), "length must be > 0"),
        (lambda: PolicyGradient(silent="no"), "silent must be keep or drop"),  # type: ignore[arg-type]
        (lambda: PolicyGradient(anchors=(Kl(), Kl(0.1))), "each anchor may be given once, found the knobs kl, kl"),
        (lambda: PolicyGradient()(POLICY, rollouts(), {}), "the batch holds no column 'advantage'; call prepare"),
        (lambda: PolicyGradient(anchors=(Kl(),)).prepare(POLICY, rollouts(), {}), "bind\\(frozen\\) must come before prepare"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
    with pytest.raises(InputError, match="there is no method 'trasted' among stabilisers"):
        make("objectives/policy_gradient", stabiliser="trasted")
    made = make("objectives/policy_gradient", advantage={"generalised": {"trace": 0.5}}, anchors=["kl", {"entropy": {"coefficient": 0.1}}])
    assert made.advantage == Generalised(trace=0.5) and made.anchors == (Kl(), Entropy(0.1))
