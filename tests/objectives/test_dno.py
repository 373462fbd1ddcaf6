"""Direct Nash optimisation: win rates, soft targets, its limits in DPO, and rock, paper and scissors."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from small_texts import GROUPS, Bigram, bigram, groups, log_prob, same_gradient, text

from outlay.errors import InputError
from outlay.objectives import DirectNash, DirectPreference
from outlay.objectives.dno import expected_win_rates
from outlay.testing import check_objective

#: judged rows of every group, and what they are worth
JUDGED = {3: {0: 1.0, 1: 0.0}, 5: {2: 0.2, 3: 0.9, 4: 0.5}, 9: {6: 0.5, 7: 0.5}}


def sigmoid(x: float) -> float:
    return float(torch.sigmoid(torch.tensor(x, dtype=torch.float64)))


def ratio(model: Bigram, start: Bigram, row: int) -> torch.Tensor:
    return (log_prob(model, *GROUPS[row]) - log_prob(start, *GROUPS[row]).detach()).sum()


def test_by_its_formula() -> None:
    model, start = bigram(0), bigram(1)
    objective: Any = DirectNash(scale=2.0).bind(lambda: start)
    losses = []
    for worth in JUDGED.values():
        rate = {i: sum(sigmoid(2.0 * (worth[i] - worth[j])) for j in worth) / len(worth) for i in worth}
        for i, j in combinations(worth, 2):
            target, logit = sigmoid(rate[i] - rate[j]), 0.3 * (ratio(model, start, i) - ratio(model, start, j))
            losses.append(-target * torch.sigmoid(logit).log() - (1 - target) * torch.sigmoid(-logit).log())
    expected = torch.stack(losses).mean()
    batch = objective.prepare(model, groups(), {})
    loss, _ = objective(model, batch, {"beta": 0.3})
    assert objective.weight(batch) == len(losses) == 5
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert same_gradient(loss, expected, model, 1e-6)


def test_hard_targets_are_dpo_on_every_pair() -> None:
    model, start = bigram(0), bigram(1)
    objective: Any = DirectNash("hard").bind(lambda: start)
    batch = objective.prepare(model, groups(), {})
    assert objective.weight(batch) == 4.0  # the tie teaches nothing
    pairs = [(0, 1), (3, 2), (3, 4), (4, 2)]
    rows = [GROUPS[row] for pair in pairs for row in pair]
    apart = text(rows, group=[i // 2 for i in range(8)], reward=[1.0, 0.0] * 4)
    dpo: Any = DirectPreference().bind(lambda: start)
    other = dpo(model, dpo.prepare(model, apart, {}), {})[0]
    loss = objective(model, batch, {})[0]
    assert float(loss) == pytest.approx(float(other), rel=1e-10)
    assert same_gradient(loss, other, model)


def test_close_pairs_are_left_out() -> None:
    assert DirectNash(margin=0.35).weight(groups()) == 3.0  # 1.0 - 0.0, 0.9 - 0.2, 0.9 - 0.5
    assert DirectNash(margin=0.8).weight(groups()) == 1.0
    assert DirectNash("hard", margin=2.0).weight(groups()) == 0.0


def test_win_rates_under_any_policy_average_to_a_half() -> None:
    draw = torch.Generator().manual_seed(0)
    raw = torch.rand(5, 5, generator=draw, dtype=torch.float64)
    preference = 0.5 + 0.5 * (raw - raw.T)
    policy = torch.rand(5, generator=draw, dtype=torch.float64)
    policy /= policy.sum()
    assert float(policy @ expected_win_rates(preference, policy)) == pytest.approx(0.5, abs=1e-12)


def test_the_uniform_policy_is_where_rock_paper_and_scissors_rest() -> None:
    preference = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
    assert expected_win_rates(preference, torch.full((3,), 1 / 3)).tolist() == pytest.approx([0.5] * 3)
    assert expected_win_rates(preference, torch.tensor([1.0, 0.0, 0.0])).tolist() == [0.5, 0.0, 1.0]


def test_equal_answers_are_drawn_together() -> None:
    model, start = bigram(0), bigram(1)
    objective: Any = DirectNash().bind(lambda: start)
    tie = {name: column[6:] for name, column in groups().items()}
    d = 0.1 * (ratio(model, start, 6) - ratio(model, start, 7))
    expected = -0.5 * (torch.sigmoid(d).log() + torch.sigmoid(-d).log())
    assert float(objective(model, objective.prepare(model, tie, {}), {})[0]) == pytest.approx(float(expected), rel=1e-7)
    hard: Any = DirectNash("hard").bind(lambda: start)
    loss, measures = hard(model, hard.prepare(model, tie, {}), {})
    assert (hard.weight(tie), float(loss), measures) == (0.0, 0.0, {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"targets": "firm"}, "targets must be soft or hard, found 'firm'"),
        ({"scale": 0.0}, "scale must be finite and > 0, found 0.0"),
        ({"margin": -1.0}, "margin must be finite and >= 0, found -1.0"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DirectNash(**fields)
    with pytest.raises(InputError, match="objectives/dno compares with the model as it was"):
        DirectNash().prepare(bigram(), groups(), {})


@pytest.mark.parametrize("objective", [DirectNash(), DirectNash("hard"), DirectNash(scale=3.0, margin=0.35)])
def test_contract(objective: DirectNash) -> None:
    check_objective(objective, bigram(), groups(), frozen=bigram(1))
