"""Reward models: the backbone's weights taken over, one score a text, and a folder that is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from outlay.errors import InputError
from outlay.models import Mlp, Pretrained, RewardModel, Transformer
from outlay.testing import check_model

TINY = Transformer(hidden=16, layers=2, heads=2, context=32)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3"])
def test_the_backbone_is_taken_over_and_the_head_gives_one_score(architecture: str) -> None:
    backbone = Transformer(architecture=architecture, hidden=16, layers=1, heads=2, context=32)
    language: Any = backbone.build(3).module
    module: Any = RewardModel(backbone).build(3).module
    taken = module.base_model.state_dict()
    assert all(torch.equal(value, taken[name]) for name, value in language.base_model.state_dict().items())
    assert (module.config.num_labels, module.config.pad_token_id, tuple(module.score.weight.shape)) == (1, 0, (1, 16))
    assert module.score.weight.any()
    ids = torch.tensor([[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]])
    scores = module.eval()(input_ids=ids, attention_mask=(ids != 0).long()).logits
    alone = module(input_ids=ids[:1, :3], attention_mask=torch.ones(1, 3, dtype=torch.long)).logits
    assert scores.shape == (2, 1) and torch.allclose(scores[0], alone[0], atol=1e-6)


def test_contract() -> None:
    check_model(RewardModel(TINY))


def test_it_begins_with_a_saved_language_model_and_is_read_again(tmp_path: Path) -> None:
    language = TINY.build(7)
    language.save(language.module, tmp_path / "language")
    spec = RewardModel(Pretrained(str(tmp_path / "language")))
    heads: list[Any] = [spec.build(seed).module for seed in (1, 1, 2)]
    assert torch.equal(heads[0].score.weight, heads[1].score.weight) and not torch.equal(heads[0].score.weight, heads[2].score.weight)
    assert torch.equal(heads[0].model.embed_tokens.weight, language.module.model.embed_tokens.weight)  # type: ignore[union-attr]
    made = spec.build(1)
    made.save(made.module, tmp_path / "reward")
    again: Any = RewardModel(path=str(tmp_path / "reward")).build(5).module
    assert torch.equal(again.score.weight, heads[0].score.weight)
    check_model(RewardModel(path=str(tmp_path / "reward")), drawn=False)
    with pytest.raises(InputError, match="holds LlamaForCausalLM and no reward model; begin with it as backbone"):
        RewardModel(path=str(tmp_path / "language")).build(0)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exactly one of backbone and path says what the reward model begins with, found none"):
        RewardModel()
    with pytest.raises(ValueError, match="found backbone and path"):
        RewardModel(TINY, "x")
    with pytest.raises(InputError, match="no reward model at"):
        RewardModel(path=str(tmp_path / "absent")).build(0)
    with pytest.raises(InputError, match="a reward model begins with a language model"):
        RewardModel(Mlp(inputs=2, classes=2)).build(0)
