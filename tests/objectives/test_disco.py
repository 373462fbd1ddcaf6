"""DisCO: its objective by hand, the limits of its temperature, the squared hinge, and pieces that know of the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_rollouts import POLICY, WRITER, rollouts
from small_texts import GROUPS, bigram, log_prob

from outlay.denominators import Old
from outlay.objectives import Disco, DiscoB
from outlay.objectives.base import Surveys
from outlay.testing import check_objective

#: three questions: one good of two; two good of three judged; none good
REWARDS = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
QUESTIONS = [([0], [1]), ([2, 4], [3])]
JUDGED = [row for row in range(8) if row != 5]


def batch(writer: Any = WRITER) -> dict[str, torch.Tensor]:
    return rollouts(writer, REWARDS)


def scores(kind: str) -> torch.Tensor:
    now = [log_prob(POLICY, *row) for row in GROUPS]
    if kind == "log_l":
        return torch.stack([each.mean() for each in now])
    return torch.stack([(each - log_prob(WRITER, *row).detach()).exp().mean() for each, row in zip(now, GROUPS, strict=True)])


def divergence(kind: str = "k1") -> torch.Tensor:
    apart = torch.cat([log_prob(WRITER, *GROUPS[i]).detach() - log_prob(POLICY, *GROUPS[i]) for i in JUDGED])
    return (apart if kind == "k1" else torch.expm1(-apart) + apart).mean()


def objective_by_hand(kind: str, tau: float | None) -> torch.Tensor:
    s, total = scores(kind), torch.zeros((), dtype=torch.float64)
    for good, bad in QUESTIONS:
        against = s[bad].mean() if tau is None else tau * (s[bad] / tau).exp().mean().log()
        total = total + s[good].mean() - against
    return total / 3


@pytest.mark.parametrize("kind", ["log_l", "ratio"])
@pytest.mark.parametrize("tau", [None, 0.3, 2.0])
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_by_hand(kind: Any, tau: float | None, estimator: Any) -> None:
    told = {"score": kind, "divergence": estimator, "delta": 1e-3, "beta": 50.0}
    one = DiscoB(**told) if tau is None else Disco(**told, tau=tau)
    kl = divergence(estimator)
    force = max(0.0, 50 * (float(kl.detach()) - 1e-3))
    assert force > 0
    loss, measures = one(POLICY, batch(), {})
    assert float(loss) == pytest.approx(float(-objective_by_hand(kind, tau) + force * kl))
    # the penalty's gradient is that of beta / 2 (KL - delta)^2
    whole = -objective_by_hand(kind, tau) + 25 * (kl - 1e-3) ** 2
    (expected,) = torch.autograd.grad(whole, [POLICY.table])
    assert torch.allclose(torch.autograd.grad(loss, [POLICY.table])[0], expected)
    assert float(measures["gap"]) == pytest.approx(float(objective_by_hand(kind, None).detach()))
    assert (float(measures["mixed"]), float(measures["constraint"])) == (pytest.approx(2 / 3), pytest.approx(force))
    assert one.weight(batch()) == 3


def test_inside_the_trust_region_there_is_no_penalty() -> None:
    kl = float(divergence().detach())
    free = torch.autograd.grad(DiscoB(beta=0.0)(POLICY, batch(), {})[0], [POLICY.table])[0]
    inside = torch.autograd.grad(DiscoB(delta=kl + 1e-9)(POLICY, batch(), {})[0], [POLICY.table])[0]
    outside = torch.autograd.grad(DiscoB(delta=kl - 1e-3)(POLICY, batch(), {})[0], [POLICY.table])[0]
    assert torch.equal(free, inside) and not torch.allclose(free, outside)
    on_policy = DiscoB(delta=0.0, divergence="k3")(POLICY, batch(POLICY), {})
    assert float(on_policy[1]["constraint"]) == pytest.approx(0.0, abs=1e-9)


def test_the_limits_of_the_temperature() -> None:
    rewards = [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    data = rollouts(POLICY, rewards)

    def loss(one: Any) -> float:
        return float(one(POLICY, data, {})[0].detach())

    assert loss(Disco(tau=1e6, beta=0.0)) == pytest.approx(loss(DiscoB(beta=0.0)), abs=1e-6)
    s = scores("log_l").detach()
    highest = (s[0] - s[1] + s[2] - max(s[3], s[4]) + s[6] - s[7]) / 3
    assert loss(Disco(tau=1e-4, beta=0.0)) == pytest.approx(-float(highest), abs=1e-3)
    assert loss(Disco(beta=0.0)) == loss(Disco(beta=0.0, tau=10.0))
    assert loss(Disco("ratio", beta=0.0)) == loss(Disco("ratio", beta=0.0, tau=1.0))


def test_a_constant_in_all_scores_of_a_question_changes_nothing() -> None:
    one = Disco(tau=0.5)
    bad = torch.tensor([[True, True, False]])
    s = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)
    assert float(one._against(s + 7, bad)) == pytest.approx(float(one._against(s, bad)) + 7)
    assert float(one._against(s * 1e4, bad)) == pytest.approx(3000.0 - 0.5 * 0.6931471805599453)  # no overflow


def test_a_batch_without_a_mixed_question_has_a_gradient_of_0() -> None:
    data = rollouts(POLICY, [1.0] * 8)
    loss, measures = Disco(beta=0.0)(POLICY, data, {})
    assert not torch.autograd.grad(loss, [POLICY.table])[0].any() and float(measures["mixed"]) == 0


def test_the_old_policy_may_be_recomputed() -> None:
    one = DiscoB(denominator=Old())
    other = bigram(2)
    ready = one.prepare(other, batch(), {})
    assert one.passes == 1 and DiscoB().passes == 0 and DiscoB().prepare(other, batch(), {}).keys() == batch().keys()
    as_behaviour = {**batch(), "behaviour": ready["old"]}
    assert float(one(POLICY, ready, {})[0]) == pytest.approx(float(DiscoB()(POLICY, as_behaviour, {})[0]))


@pytest.mark.parametrize(
    "one",
    [Disco(), DiscoB(), Disco("ratio", 1e-3, 50.0, tau=0.3), DiscoB("ratio", divergence="k3"), Disco(delta=9.0), DiscoB(denominator=Old())],
    ids=str,
)
def test_contract(one: Any) -> None:
    def held(model: Any, data: Any) -> torch.Tensor:
        loss, measures = one(model, data, {})
        kl = one._seen(model, data).divergence
        # the penalty as what it is the gradient of
        return loss - measures["constraint"] * kl + one.beta / 2 * (kl - one.delta).clamp(min=0) ** 2

    assert isinstance(one, Surveys) and one.whole_groups
    check_objective(one, POLICY, batch(), gradient_of=held)


def test_what_is_refused() -> None:
    for wrong, message in (
        (lambda: Disco("likelihood"), "score must be log_l or ratio, found 'likelihood'"), (lambda: Disco(delta=-1), "delta must be >= 0"),
        (lambda: DiscoB(beta=-1), "beta must be >= 0"), (lambda: DiscoB(divergence="k2"), "divergence must be k1 or k3"),
        (lambda: Disco(tau=0), "tau must be > 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()
