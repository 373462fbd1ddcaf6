"""Advantages of single tokens: rewards to go, generalised advantages, ReMax's, and whitening, each against a recursion a line."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.advantages import Advantage, Generalised, Greedy, Group, LeaveOneOut, Shifted, ToGo, Whitened
from outlay.sequences import answer_mask, shifted
from outlay.testing import check_advantage, rollout_batch

BATCH = rollout_batch(4, groups=2, samples=3)
MASK = answer_mask(BATCH)
SHAPING = 0.3 * shifted(BATCH, "behaviour")


def tokens_of(row: int, column: torch.Tensor) -> list[float]:
    """Return a row's values on its answer alone, in order."""
    return column[row][MASK[row]].tolist()


def rewards_of(row: int) -> list[float]:
    rewards = tokens_of(row, SHAPING)
    rewards[-1] += float(BATCH["reward"][row])
    return rewards


def judged() -> list[int]:
    return [row for row in range(len(MASK)) if BATCH["judged"][row]]


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_rewards_to_go_are_their_sums(discount: float) -> None:
    found = ToGo(discount).advantages(BATCH, MASK, SHAPING)
    for row in judged():
        rewards = rewards_of(row)
        expected = [sum(discount ** (s - t) * rewards[s] for s in range(t, len(rewards))) for t in range(len(rewards))]
        assert tokens_of(row, found) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("discount", "trace"), [(1.0, 0.95), (0.9, 0.5), (0.8, 0.0), (0.7, 1.0)])
def test_generalised_advantages_are_their_recursion(discount: float, trace: float) -> None:
    advantage = Generalised(discount, trace)
    found, targets = advantage.advantages(BATCH, MASK, SHAPING), advantage.returns(BATCH, MASK, SHAPING)
    for row in judged():
        rewards, values = rewards_of(row), [*tokens_of(row, shifted(BATCH, "values")), 0.0]
        expected, after = [0.0] * len(rewards), 0.0
        for t in reversed(range(len(rewards))):
            after = rewards[t] + discount * values[t + 1] - values[t] + discount * trace * after
            expected[t] = after
        assert tokens_of(row, found) == pytest.approx(expected, abs=1e-12)
        assert tokens_of(row, targets) == pytest.approx([a + v for a, v in zip(expected, values[:-1], strict=True)], abs=1e-12)


def test_the_limits_of_the_trace() -> None:
    values = shifted(BATCH, "values")
    own = MASK & BATCH["judged"][:, None]
    to_go = ToGo(0.9).advantages(BATCH, MASK, SHAPING)
    assert torch.allclose(Generalised(0.9, 1.0).advantages(BATCH, MASK, SHAPING), torch.where(own, to_go - values, 0.0))
    silent = {**BATCH, "values": torch.zeros_like(BATCH["values"])}
    assert torch.allclose(Generalised(0.9, 1.0).advantages(silent, MASK, SHAPING), to_go)
    # a critic that is right about everything leaves nothing to be better than
    right = {**BATCH, "values": torch.nn.functional.pad(ToGo().advantages(BATCH, MASK, SHAPING), (1, 0))}
    assert float(Generalised(1.0, 0.7).advantages(right, MASK, SHAPING).abs().max()) < 1e-12


def test_an_answer_with_gaps_is_one_answer() -> None:
    batch = {
        "labels": torch.tensor([[-100, 5, -100, 6, 7]]), "reward": torch.tensor([1.0]), "group": torch.tensor([0]),
        "values": torch.tensor([[0.0, 0.25, 99.0, 0.5, 0.75]]),
    }  # fmt: skip
    mask, none = answer_mask(batch), torch.zeros(1, 4)
    assert ToGo(0.5).advantages(batch, mask, none).tolist() == [[0.25, 0.0, 0.5, 1.0]]
    assert Generalised(1.0, 0.0).advantages(batch, mask, none).tolist() == [[0.25, 0.0, 0.25, 0.25]]


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_greedy_takes_the_tokens_own_shaping_alone(discount: float) -> None:
    found = Greedy(clip=0.6, discount=discount).advantages(BATCH, MASK, SHAPING)
    for row in judged():
        shaping = tokens_of(row, SHAPING)
        better = min(max(float(BATCH["reward"][row] - BATCH["greedy_reward"][row]), -0.6), 0.6)
        expected = [own + discount ** (len(shaping) - t) * better for t, own in enumerate(shaping, start=1)]
        assert tokens_of(row, found) == pytest.approx(expected, abs=1e-12)


def test_greedy_ignores_a_constant_in_all_rewards_and_is_0_at_the_greedy_answer() -> None:
    none = torch.zeros(MASK.shape, dtype=torch.float64)
    moved = {**BATCH, "reward": BATCH["reward"] + 3, "greedy_reward": BATCH["greedy_reward"] + 3}
    assert torch.allclose(Greedy().advantages(moved, MASK, none), Greedy().advantages(BATCH, MASK, none))
    assert not Greedy().advantages({**BATCH, "reward": BATCH["greedy_reward"]}, MASK, none).any()


# ---- whitening -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unbiased", [True, False])
def test_whitening_over_tokens(unbiased: bool) -> None:
    raw = ToGo().advantages(BATCH, MASK, SHAPING)
    own = MASK & BATCH["judged"][:, None]
    found = Whitened(ToGo(), unbiased=unbiased, epsilon=0.0).advantages(BATCH, MASK, SHAPING)
    assert torch.allclose(found[own], (raw[own] - raw[own].mean()) / raw[own].std(correction=int(unbiased)))
    assert not found[~own].any()


def even(rewards: list[float], groups: list[int]) -> dict[str, torch.Tensor]:
    labels = torch.full((len(rewards), 4), 3)
    labels[:, 0] = -100
    return {"labels": labels, "reward": torch.tensor(rewards, dtype=torch.float64), "group": torch.tensor(groups)}


def test_over_answers_of_equal_length_it_is_the_batchs_normaliser() -> None:
    batch = even([1, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1])
    mask, none = answer_mask(batch), torch.zeros(6, 3, dtype=torch.float64)
    found = Whitened(unbiased=False, epsilon=0.0).advantages(batch, mask, none)
    assert float(found.mean()) == pytest.approx(0, abs=1e-12) and float(found.std(correction=0)) == pytest.approx(1)
    for change in (lambda r: 10 * r, lambda r: 2 * r - 1):
        assert torch.allclose(Whitened(epsilon=0.0).advantages({**batch, "reward": change(batch["reward"])}, mask, none),
                              Whitened(epsilon=0.0).advantages(batch, mask, none))  # fmt: skip
    # one group of n answers: GRPO up to the factor between the two deviations
    single = even([1, 0, 0, 1, 1], [0] * 5)
    mask, none = answer_mask(single), torch.zeros(5, 3, dtype=torch.float64)
    ours = Whitened(unbiased=False, epsilon=0.0).advantages(single, mask, none)
    assert torch.allclose(ours, math.sqrt(5 / 4) * Group(epsilon=0.0).advantages(single, mask, none))


def test_a_long_answer_weighs_more() -> None:
    labels = torch.tensor([[-100, 1, 1, 1, 1], [-100, 1, -100, -100, -100]])
    batch = {"labels": labels, "reward": torch.tensor([1.0, 0.0]), "group": torch.tensor([0, 0])}
    found = Whitened(Shifted(), unbiased=False, epsilon=0.0).advantages(batch, answer_mask(batch), torch.zeros(2, 4))
    # mean 4/5, deviation sqrt(4/25)
    assert found[0].tolist() == pytest.approx([0.5] * 4) and found[1].tolist() == pytest.approx([-2.0, 0, 0, 0])


def test_a_batch_that_is_all_the_same_has_no_advantage() -> None:
    batch = even([0.1] * 4, [0, 0, 1, 1])
    for epsilon in (0.0, 1e-8):
        assert not Whitened(Shifted(), epsilon=epsilon).advantages(batch, answer_mask(batch), torch.zeros(4, 3)).any()


def test_whitening_hands_the_critic_what_it_was_to_learn() -> None:
    assert torch.equal(Whitened(Generalised()).returns(BATCH, MASK, SHAPING), Generalised().returns(BATCH, MASK, SHAPING))
    with pytest.raises(TypeError, match="Group has nothing for a critic to learn"):
        Whitened().returns(BATCH, MASK, SHAPING)
    assert Whitened(Greedy()).needs_greedy and not Whitened().needs_greedy
    assert Whitened(Generalised()).needs_values and not Whitened().needs_values


@given(st.floats(0.05, 1), st.floats(0, 1))
def test_values_that_are_finite_stay_finite(discount: float, trace: float) -> None:
    far = {**BATCH, "reward": BATCH["reward"].float() * 1e6, "values": BATCH["values"].float() * 1e6}
    shaping = SHAPING.float() * 1e6
    for advantage in (ToGo(discount), Generalised(discount, trace), Whitened(Generalised(discount, trace)), Greedy(5.0, discount)):
        assert bool(advantage.advantages(far, MASK, shaping).isfinite().all())


@pytest.mark.parametrize(
    "advantage",
    [
        ToGo(),
        ToGo(0.5),
        Generalised(),
        Generalised(0.9, 0.3),
        Greedy(),
        Greedy(0.1, 1.0),
        Whitened(),
        Whitened(LeaveOneOut()),
        Whitened(Generalised()),
    ],
    ids=str,
)
def test_contract(advantage: Advantage) -> None:
    check_advantage(advantage)


def test_what_is_refused() -> None:
    for wrong, message in (
        (lambda: ToGo(0.0), "discount must lie in"), (lambda: Generalised(trace=1.5), "trace must lie in"),
        (lambda: Greedy(clip=0), "clip must be > 0"), (lambda: Greedy(discount=2), "discount must lie in"),
        (lambda: Whitened(epsilon=-1), "epsilon must be >= 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()
