"""Reward modelling: pairs, lists and margins by their formulas, goals along good answers, and parity with TRL's trainer."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_texts import GROUPS, bigram, groups, same_gradient, text
from torch import nn
from trl_peers import PAIRS

from outlay.errors import InputError
from outlay.models import RewardModel, Transformer
from outlay.objectives import GoalConditionedReward, RewardRanking
from outlay.objectives.goal_conditioned import places
from outlay.testing import check_objective


class Scorer(nn.Module):
    """Scores a text by its last token and its mean embedding, both learnt; its hidden states are running means of embeddings."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.config = SimpleNamespace(pad_token_id=0)
        self.embedding = nn.Parameter(torch.randn(7, 4, generator=draw, dtype=torch.float64))
        self.head = nn.Parameter(torch.randn(4, generator=draw, dtype=torch.float64))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, output_hidden_states: bool = False) -> Any:
        assert not input_ids[attention_mask == 0].any(), "padding is written as the model's own"
        seen = self.embedding[input_ids] * attention_mask[..., None]
        states = seen.cumsum(1) / attention_mask.cumsum(1).clamp(min=1)[..., None]
        last = states[torch.arange(len(states)), attention_mask.sum(1) - 1]
        return SimpleNamespace(logits=(last.tanh() @ self.head)[:, None], hidden_states=(states,) if output_hidden_states else None)


def scored(model: Scorer) -> torch.Tensor:
    """Scores of all rows: the readable twin."""
    return torch.stack([model.embedding[[*prompt, *answer]].mean(0).tanh() @ model.head for prompt, answer in GROUPS])


def log_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x).log()


#: pairs (better, worse) of either group that has some
COMPARED = [[(0, 1)], [(3, 2), (4, 2), (3, 4)]]


def test_by_its_formula() -> None:
    model = Scorer()
    s, worth = scored(model), groups()["reward"].double()
    expected = torch.stack(
        [
            torch.stack([-log_sigmoid(s[i] - s[j] - 0.7 * (worth[i] - worth[j])) + 0.1 * (s[i] + s[j]) ** 2 for i, j in pairs]).mean()
            for pairs in COMPARED
        ]
    ).mean()
    loss, measures = RewardRanking(0.7, 0.1)(model, groups(), {})
    assert float(loss) == pytest.approx(float(expected), rel=1e-7)
    assert same_gradient(loss, expected, model, 1e-7)
    right = [torch.tensor([float(s[i] > s[j]) for i, j in pairs]).mean() for pairs in COMPARED]
    assert float(measures["pair_accuracy"]) == pytest.approx(float(sum(right) / 2))
    assert RewardRanking().weight(groups()) == 2.0


def test_right_and_wrong_answers_are_ranked_as_a_list() -> None:
    """Two right answers out of five: -1/(2 * 3) sum of log sigma over the six differences."""
    model = Scorer()
    rows = GROUPS[:5]
    batch = text(rows, group=[0] * 5, reward=[1.0, 0.0, 0.0, 1.0, 0.0])
    s = scored(model)
    expected = -sum(log_sigmoid(s[i] - s[j]) for i in (0, 3) for j in (1, 2, 4)) / 6
    loss, _ = RewardRanking()(model, batch, {})
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("right", [[1.0] * 5, [0.0] * 5])
@pytest.mark.parametrize("objective", [RewardRanking(), GoalConditionedReward()])
def test_a_list_all_right_or_all_wrong_is_skipped(objective: Any, right: list[float]) -> None:
    model = Scorer()
    loss, measures = objective(model, text(GROUPS[:5], group=[0] * 5, reward=right), {})
    assert (float(loss), measures) == (0.0, {})
    assert objective.weight(text(GROUPS[:5], group=[0] * 5, reward=right)) == 0.0
    assert not any(bool(g.any()) for g in torch.autograd.grad(loss, list(model.parameters()), allow_unused=True) if g is not None)


def test_scores_may_be_shifted_unless_they_are_centred() -> None:
    class Shifted(Scorer):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            return SimpleNamespace(logits=output.logits + 3.0, hidden_states=output.hidden_states)

    plain, shifted = Scorer(), Shifted()
    assert float(RewardRanking()(plain, groups(), {})[0]) == pytest.approx(float(RewardRanking()(shifted, groups(), {})[0]))
    assert float(RewardRanking(centring=0.1)(shifted, groups(), {})[0]) > float(RewardRanking(centring=0.1)(plain, groups(), {})[0])


def test_a_language_model_is_refused() -> None:
    language = bigram()
    language.config = SimpleNamespace(pad_token_id=0)  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"one score a text, and this model logits of shape \(8, 6, 7\); use models/reward_model"):
        RewardRanking()(language, groups(), {})


# ---- goals ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("good", "bad"), [(1, 1), (1, 5), (2, 1), (6, 6), (9, 3)])
def test_goals_come_after_their_source(good: int, bad: int) -> None:
    seen = [places(good, bad, counter) for counter in range(400)]
    assert all(0 <= source < good and 0 <= later < good and 0 <= other < bad for source, later, other in seen)
    assert all(later > source for source, later, _ in seen) or good == 1
    assert all(other > source or other == bad - 1 for source, _, other in seen)
    assert {source for source, _, _ in seen} == set(range(max(1, good - 1)))
    assert {later for _, later, _ in seen} == set(range(min(1, good - 1), good))


@pytest.mark.parametrize("kind", ["cosine", "dot"])
def test_the_contrast_by_its_formula(kind: Any) -> None:
    import zlib

    model = Scorer()
    batch = groups()
    losses = []
    for better, worse in ((0, 1), (3, 2)):
        states = [
            torch.stack([model.embedding[[*prompt, *answer[: i + 1]]].mean(0) for i in range(len(answer))])
            for prompt, answer in (GROUPS[better], GROUPS[worse])
        ]
        content = b"".join(torch.tensor([*GROUPS[row][0], *GROUPS[row][1]]).numpy().tobytes() for row in (better, worse))
        source, later, other = places(len(states[0]), len(states[1]), zlib.crc32(content))
        at, positive, negative = states[0][source], states[0][later], states[1][other]
        q = [one @ at / ((one.norm() * at.norm()) if kind == "cosine" else 1.0) for one in (positive, negative)]
        losses.append(-log_sigmoid(q[0]) - (1 - torch.sigmoid(q[1])).log())
    expected = RewardRanking()(model, batch, {})[0] + 0.8 * torch.stack(losses).mean()
    loss, measures = GoalConditionedReward(kind)(model, batch, {"goal_weight": 0.8})
    assert float(loss) == pytest.approx(float(expected), rel=1e-9)
    assert same_gradient(loss, expected, model, 1e-9)
    assert float(measures["goal_loss"]) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-9)


def test_without_goals_it_is_the_plain_ranking() -> None:
    model = Scorer()
    one = GoalConditionedReward(margin=0.5, centring=0.1)(model, groups(), {"goal_weight": 0.0})[0]
    other = RewardRanking(0.5, 0.1)(model, groups(), {})[0]
    assert torch.equal(one, other)
    assert same_gradient(one, other, model, 0.0)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: RewardRanking(margin=-1.0), "margin must be finite and >= 0, found -1.0"),
        (lambda: GoalConditionedReward("l2"), "similarity must be cosine or dot, found 'l2'"),  # type: ignore[arg-type]
        (lambda: GoalConditionedReward(centring=-1.0), "centring must be finite and >= 0, found -1.0"),
    ],
)
def test_wrong_fields_are_refused(made: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made()


@pytest.mark.parametrize(("margin", "centring"), [(0.0, 0.0), (0.5, 0.1)])
def test_parity_with_trl(margin: float, centring: float, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    loaded = RewardModel(Transformer(hidden=16, layers=1, heads=2, context=64)).build(0)
    rows = [{**row, **({"margin": margin * (i + 1)} if margin else {})} for i, row in enumerate(PAIRS)]
    trainer = trl.RewardTrainer(
        model=copy.deepcopy(loaded.module),
        args=trl.RewardConfig(
            output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
            per_device_train_batch_size=4, center_rewards_coefficient=centring or None,
        ),
        train_dataset=Dataset.from_list(rows), processing_class=loaded.tokenizer,
    )  # fmt: skip
    trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    mine = {
        "input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": batch["input_ids"],
        "group": torch.arange(4).repeat(2),
        "reward": torch.cat([batch["margin"] if margin else torch.ones(4), torch.zeros(4)]),
    }  # fmt: skip
    loss, _ = RewardRanking(1.0 if margin else 0.0, centring)(loaded.module.eval(), mine, {})
    theirs = trainer.compute_loss(trainer.model, dict(batch))
    assert float(loss) == pytest.approx(float(theirs), rel=1e-5)
    ours, other = (torch.autograd.grad(value, list(m.parameters())) for value, m in ((loss, loaded.module), (theirs, trainer.model)))
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(ours, other, strict=True))


@pytest.mark.parametrize("objective", [RewardRanking(0.5, 0.1), GoalConditionedReward(), GoalConditionedReward("dot")])
def test_contract(objective: Any) -> None:
    check_objective(objective, Scorer(), groups())


def test_contract_on_a_transformer() -> None:
    module = RewardModel(Transformer(hidden=16, layers=1, heads=2, context=32)).build(0).module
    check_objective(RewardRanking(), module, groups(), tolerance=1e-4, step=1e-3)
