from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from made_answers import CONTEXT, answer, outcomes, values
from transformers import AutoModel, LlamaConfig

from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.rewards import GoalConditioned
from outlay.rewards.goal_conditioned import goal_scores, goal_state

TOKENIZER = open_tokenizer("characters")
GOOD = [("2+2=", "4"), ("3+3=", "6!")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("states")
    settings = LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=32, pad_token_id=0, eos_token_id=2, bos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(settings).save_pretrained(path)
    TOKENIZER.save_pretrained(path)
    (path / "good.jsonl").write_text("\n".join(json.dumps({"prompt": p, "answer": a}) for p, a in GOOD) + "\n\n")
    return path


def state(folder: Path, ids: list[int], layer: int) -> torch.Tensor:
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0, -1]
    return found


def ids(text: str) -> list[int]:
    found: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return found


def test_goal_and_score_by_hand() -> None:
    goal = goal_state([torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2.0])])
    assert goal.tolist() == [1.0, 1.0]
    states = torch.tensor([[2.0, 2.0], [-1.0, -1.0], [1.0, -1.0], [1.0, 0.0]])
    assert goal_scores(states, goal).tolist() == pytest.approx([1, -1, 0, 0.5**0.5])


@pytest.mark.parametrize("layer", [-1, 1])
def test_the_reward_is_the_cosine_to_the_mean_of_good_ends(folder: Path, layer: int) -> None:
    goal = torch.stack([state(folder, [*ids(p + a), 2], layer) for p, a in GOOD]).mean(0)
    made = [answer("5", prompt="2+2="), answer("a longer one", prompt="Why?", ended=False)]
    rows = [[*ids("2+2=5"), 2], ids("Why?a longer one")]
    expected = [float(torch.cosine_similarity(state(folder, row, layer), goal, dim=0)) for row in rows]
    for size in (1, 8):
        reward = GoalConditioned(str(folder), folder / "good.jsonl", layer=layer, batch_size=size, threshold=sum(expected) / 2)
        assert values(reward, made) == pytest.approx(expected, abs=1e-5)
        assert outcomes(reward, made) == ["passed" if value >= sum(expected) / 2 else "failed" for value in expected]


def test_a_single_good_answer_is_its_own_goal(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps({"prompt": "2+2=", "answer": "4"}))
    reward = GoalConditioned(str(folder), tmp_path / "one.jsonl")
    assert values(reward, [answer("4", prompt="2+2=")]) == pytest.approx([1.0], abs=1e-6)
    assert outcomes(reward, [answer("4" * 40, prompt="2+2=")]) == ["unjudged"]
    other = [answer("5", prompt="1+1=")]
    (exactly,) = values(reward, other)
    assert outcomes(GoalConditioned(str(folder), tmp_path / "one.jsonl", threshold=exactly), other) == ["passed"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read good answers from .*: No such file"),
        ("", "holds no good answers"),
        ("{", "line 1: good answers are JSON objects with prompt and answer, found '{'"),
        ("[]", "line 1: good answers are JSON objects"),
        ('{"prompt": "a", "answer": "b"}\n{"prompt": 1, "answer": "b"}', "line 2: prompt and answer must be texts"),
        (json.dumps({"prompt": "", "answer": "a" * 40}), "every good answer in .* is longer than the model reads"),
    ],
)
def test_good_answers_that_cannot_be_read_are_refused(folder: Path, tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "good.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        GoalConditioned(str(folder), tmp_path / "good.jsonl").open(CONTEXT)


def test_bad_fields_and_layers_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"layer must lie in -3..2 for this model, found 3"):
        GoalConditioned(str(folder), folder / "good.jsonl", layer=3).open(CONTEXT)
    with pytest.raises(ValueError, match=r"threshold must lie in \[-1, 1\], found 2"):
        GoalConditioned("x", Path("y"), threshold=2)
    with pytest.raises(ValueError, match="batch_size must be > 0, found 0"):
        GoalConditioned("x", Path("y"), batch_size=0)
