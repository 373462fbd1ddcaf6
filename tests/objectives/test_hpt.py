"""HPT: who pays for a question, the loss by hand, its limits, and pieces that know of the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_rollouts import POLICY, WRITER, gradient_of, loss_of, rollouts
from small_texts import GROUPS, log_prob, text

from outlay.advantages import Group
from outlay.objectives import Hpt, NextToken, PolicyGradient
from outlay.objectives.hpt import SOFT
from outlay.stabilisers import Unmasked
from outlay.testing import check_objective

#: demonstrations of the three questions
SHOWN: list[tuple[list[int], list[int]]] = [([1], [2, 2, 3]), ([2, 6], [4, 4]), ([4], [5])]


def batch(rewards: list[float]) -> dict[str, torch.Tensor]:
    """Return the rollouts with each question's demonstration after its answers."""
    answers = rollouts(WRITER, rewards)
    order = [0, 1, None, 2, 3, 4, 5, None, 6, 7, None]
    shown = text(SHOWN, group=[3, 5, 9], reward=[0.0] * 3, judged=[True] * 3, ended=[True] * 3, limit=[5] * 3, temperature=[1.0] * 3)
    width = answers["labels"].shape[1]
    fillers = {"labels": -100}
    made: dict[str, torch.Tensor] = {}
    for name, column in answers.items():
        if name == "greedy_reward":
            continue
        extra = shown[name].to(column.dtype) if name in shown else torch.zeros(3, width, dtype=column.dtype)
        if extra.dim() == 2:
            extra = torch.nn.functional.pad(extra, (0, width - extra.shape[1]), value=fillers.get(name, 0))
        both, left, right = [], iter(column), iter(extra)
        for place in order:
            both.append(next(right) if place is None else next(left))
        made[name] = torch.stack(both)
    return made | {"demonstration": torch.tensor([place is None for place in order])}


#: right: 1 of 2, 0 of 3 judged, 2 of 2
MIXED = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def coefficients(objective: Hpt, rewards: list[float]) -> list[tuple[int, bool, float]]:
    ready = objective.prepare(POLICY, batch(rewards), {})
    return list(zip(ready["group"].tolist(), ready["demonstration"].tolist(), ready["coefficient"].tolist(), strict=True))


def test_who_pays() -> None:
    assert coefficients(Hpt(), MIXED) == [(3, False, 1)] * 2 + [(5, True, 1)] + [(9, False, 1)] * 2
    assert coefficients(Hpt(gate=0.5), MIXED) == [(3, True, 1), (5, True, 1)] + [(9, False, 1)] * 2
    assert coefficients(Hpt(gate=-1), MIXED) == [(3, False, 1)] * 2 + [(5, False, 1)] * 4 + [(9, False, 1)] * 2
    assert coefficients(Hpt(gate=1), MIXED) == [(3, True, 1), (5, True, 1), (9, True, 1)]
    for gate in (-1.0, 0.0, 0.4, 0.6, 1.0):
        shares = [0.5, 0.0, 1.0]
        assert sum(shown for _, shown, _ in coefficients(Hpt(gate=gate), MIXED)) == sum(share <= gate for share in shares)


def test_the_soft_table() -> None:
    assert coefficients(Hpt(table=SOFT), MIXED) == [(3, True, 1), (5, True, 1)] + [(9, False, 0.125)] * 2 + [(9, True, 0.5)]
    assert coefficients(Hpt(table=((0.0, 1.0),)), MIXED) == coefficients(Hpt(), MIXED)


def test_a_question_that_nobody_could_judge_pays_nothing() -> None:
    data = batch(MIXED)
    data["judged"][3:7] = False
    assert Hpt().prepare(POLICY, data, {})["group"].tolist() == [3, 3, 9, 9]
    assert Hpt(gate=1).prepare(POLICY, data, {})["group"].tolist() == [3, 9]


def nll(row: int) -> torch.Tensor:
    return -log_prob(POLICY, *SHOWN[row]).sum()


def sums(rows: list[int], rewards: list[float]) -> list[torch.Tensor]:
    worth = torch.tensor([rewards[i] for i in rows])
    ratios = [(log_prob(POLICY, *GROUPS[i]) - log_prob(WRITER, *GROUPS[i]).detach()).exp().sum() for i in rows]
    return [-r * a / 5 for r, a in zip(ratios, worth - worth.mean(), strict=True)]


def test_the_loss_by_hand() -> None:
    # two questions of three are paid with four rollouts, one with two demonstrated tokens
    loss, measures = Hpt()(POLICY, Hpt().prepare(POLICY, batch(MIXED), {}), {"sft": 0.3})
    of_rollouts = 2 / 3 * sum([*sums([0, 1], MIXED), *sums([6, 7], MIXED)]) / 4
    of_demonstrations = 0.3 * 1 / 3 * nll(1) / 2
    assert float(loss) == pytest.approx(float(of_rollouts + of_demonstrations))
    assert float(measures["rollout_loss"]) == pytest.approx(float(of_rollouts))
    assert float(measures["demonstration_loss"]) == pytest.approx(float(of_demonstrations))
    assert float(measures["demonstrations"]) == pytest.approx(1 / 5)


def test_the_soft_loss_by_hand() -> None:
    loss = loss_of(Hpt(table=SOFT), batch(MIXED))
    # one question is paid with its two rollouts, and all three with demonstrations, 3 + 2 + 1 tokens
    expected = 1 / 3 * 0.125 * sum(sums([6, 7], MIXED)) / 2 + (nll(0) + nll(1) + 0.5 * nll(2)) / 6
    assert float(loss) == pytest.approx(float(expected))


def test_its_limits_are_its_parts() -> None:
    data = batch(MIXED)
    answers = {name: column[~data["demonstration"]] for name, column in data.items()}
    rollouts_alone = PolicyGradient(Group("group", "none"), stabiliser=Unmasked(), aggregate="constant")
    assert torch.allclose(gradient_of(Hpt(gate=-1), data), gradient_of(rollouts_alone, answers), atol=1e-12)
    shown = {name: column[data["demonstration"]] for name, column in data.items()}
    (expected,) = torch.autograd.grad(NextToken()(POLICY, shown, {})[0], [POLICY.table])
    assert torch.allclose(gradient_of(Hpt(gate=1), data), expected, atol=1e-12)
    assert torch.allclose(gradient_of(Hpt(gate=1, sft=0.5), data), expected / 2, atol=1e-12)


def test_a_solved_question_has_no_gradient_and_others_still_learn() -> None:
    solved = batch([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    found = gradient_of(Hpt(), solved)
    (expected,) = torch.autograd.grad(nll(1) / 2 / 3, [POLICY.table])
    assert torch.allclose(found, expected, atol=1e-12)


def test_demonstrations_are_taught_at_temperature_1() -> None:
    data = batch(MIXED)
    data["temperature"][:] = 2.0
    ready = Hpt(gate=1).prepare(POLICY, data, {})
    assert ready["temperature"].tolist() == [1.0] * 3
    assert Hpt().prepare(POLICY, data, {})["temperature"].tolist() == [2.0, 2.0, 1.0, 2.0, 2.0]


def test_a_batch_that_brings_no_demonstrations_is_paid_with_rollouts_where_it_can_be() -> None:
    answers = rollouts(WRITER, MIXED)
    assert Hpt().prepare(POLICY, answers, {})["group"].tolist() == [3, 3, 9, 9]


def test_nothing_to_teach() -> None:
    data = batch(MIXED)
    data["judged"][~data["demonstration"]] = False
    ready = Hpt().prepare(POLICY, data, {})
    assert not torch.autograd.grad(Hpt()(POLICY, ready, {})[0], [POLICY.table])[0].any()


@pytest.mark.parametrize("objective", [Hpt(), Hpt(gate=-1), Hpt(gate=1), Hpt(table=SOFT, sft=0.3), Hpt(length=7)], ids=str)
def test_contract(objective: Any) -> None:
    assert objective.needs_demonstrations
    check_objective(objective, POLICY, batch(MIXED))


def test_what_is_refused() -> None:
    for wrong, message in (
        (lambda: Hpt(gate=2), "gate must be <= 1"), (lambda: Hpt(sft=-1), "sft must be >= 0"),
        (lambda: Hpt(table=((1.0, -1.0),)), "coefficients must be >= 0"), (lambda: Hpt(length=0), "length must be > 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()
