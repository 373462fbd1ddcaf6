from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from made_answers import CONTEXT, answer, outcomes, values, verdicts
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, pipeline

from outlay.errors import InputError
from outlay.models.tokenizers import open_tokenizer
from outlay.rewards import Learned

TOKENIZER = open_tokenizer("characters")
TEXTS = [("What?", " yes"), ("What?", " a much longer answer"), ("Why", "")]


def config(labels: int = 1) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=40, num_labels=labels, pad_token_id=0, eos_token_id=2, bos_token_id=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reward")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config())
    with torch.no_grad():
        model.score.weight.mul_(40)
    model.save_pretrained(path)
    TOKENIZER.save_pretrained(path)
    return path


def outputs(folder: Path, rows: list[list[int]]) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return [float(model(input_ids=torch.tensor([row])).logits[0, 0]) for row in rows]


def test_scores_are_the_models_own_one_by_one(folder: Path) -> None:
    made = [answer(text, prompt=prompt) for prompt, text in TEXTS]
    rows = [[*TOKENIZER(prompt + text, add_special_tokens=False)["input_ids"], 2] for prompt, text in TEXTS]
    expected = outputs(folder, rows)
    assert len({round(value, 3) for value in expected}) == 3
    for size in (1, 2, 16):
        assert values(Learned(str(folder), batch_size=size), made) == pytest.approx(expected, abs=1e-5)
    middle = sum(expected) / 3
    assert outcomes(Learned(str(folder), mean=middle), made) == ["passed" if value >= middle else "failed" for value in expected]


def test_it_agrees_with_transformers_pipeline(folder: Path) -> None:
    theirs = pipeline("text-classification", model=str(folder), function_to_apply="none", device="cpu")
    ours = values(Learned(str(folder), end_mark=False), [answer(text, prompt=prompt) for prompt, text in TEXTS])
    assert ours == pytest.approx([theirs(prompt + text)[0]["score"] for prompt, text in TEXTS], abs=1e-5)


def test_the_end_mark_follows_answers_that_ended(folder: Path) -> None:
    bare = TOKENIZER("ab", add_special_tokens=False)["input_ids"]
    expected = outputs(folder, [[*bare, 2], bare, bare])
    made = [answer("b", prompt="a"), answer("b", prompt="a", ended=False)]
    assert values(Learned(str(folder)), made) == pytest.approx(expected[:2], abs=1e-5)
    assert values(Learned(str(folder), end_mark=False), made) == pytest.approx(expected[1:], abs=1e-5)
    # one that is written out is not put there twice
    assert values(Learned(str(folder)), [answer("b" + TOKENIZER.eos_token, prompt="a")]) == pytest.approx(expected[:1], abs=1e-5)


def test_mean_std_sigmoid_and_clip_by_hand(folder: Path) -> None:
    made = [answer(text, prompt=prompt) for prompt, text in TEXTS]
    raw = values(Learned(str(folder)), made)
    moved = [(value - raw[0]) / 2 for value in raw]
    reward = Learned(str(folder), mean=raw[0], std=2)
    assert values(reward, made) == pytest.approx(moved)
    assert outcomes(reward, made)[0] == "passed"  # exactly the mean
    squashed = Learned(str(folder), mean=raw[0], std=2, sigmoid=True)
    assert values(squashed, made) == pytest.approx([1 / (1 + math.exp(-value)) for value in moved])
    assert squashed.bounds == (0.0, 1.0) and Learned("x").bounds == (-math.inf, math.inf)
    assert outcomes(squashed, made) == outcomes(reward, made) and "failed" in outcomes(reward, made)  # by z, not by its sigmoid
    clipped = Learned(str(folder), clip=(-0.1, 0.1))
    assert clipped.bounds == (-0.1, 0.1)
    assert values(clipped, made) == pytest.approx([min(0.1, max(-0.1, value)) for value in raw])
    assert Learned("x", sigmoid=True, clip=(0.25, 5.0)).bounds == (0.25, 1.0)


def test_what_is_too_long_is_not_judged(folder: Path) -> None:
    found = verdicts(Learned(str(folder)), [answer("a" * 39), answer("a" * 40), answer("", ended=False)])
    assert [verdict.outcome == "unjudged" for verdict in found] == [False, True, True]
    assert found[1].why == "41 tokens are more than the reward model's 40"
    assert found[2].why == "there is no text to read"


def test_folders_that_hold_no_reward_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no reward model at"):
        Learned(str(tmp_path / "nothing")).open(CONTEXT)
    AutoModelForSequenceClassification.from_config(config(2)).save_pretrained(tmp_path / "two")
    TOKENIZER.save_pretrained(tmp_path / "two")
    with pytest.raises(InputError, match="it has 2 labels instead of one"):
        Learned(str(tmp_path / "two")).open(CONTEXT)
    # transformers would make up a head for a language model
    AutoModelForCausalLM.from_config(config(1)).save_pretrained(tmp_path / "causal")
    TOKENIZER.save_pretrained(tmp_path / "causal")
    with pytest.raises(InputError, match=r"its folder has no score.weight"):
        Learned(str(tmp_path / "causal")).open(CONTEXT)


def test_bad_fields_are_refused() -> None:
    for fields, message in [
        ({"batch_size": 0}, "batch_size must be > 0, found 0"),
        ({"std": 0.0}, "std must be a finite number > 0, found 0"),
        ({"mean": math.nan}, "mean must be finite"),
        ({"clip": (1.0, 1.0)}, "clip must rise"),
    ]:
        with pytest.raises(ValueError, match=message):
            Learned("x", **fields)  # type: ignore[arg-type]
