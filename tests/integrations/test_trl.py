"""The callback in TRL's trainers, with a tokenizer made in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hosted import language_model, record

from outlay.integrations.transformers import BudgetCallback
from outlay.schedules import Rex

LETTERS = "abcdefghijklmnopqrstuvw +="


def tokenizer() -> Any:
    """Return a tokenizer of single letters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", *LETTERS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", padding_side="left")


COMMON: dict[str, Any] = {
    "report_to": [], "use_cpu": True, "bf16": False, "dataloader_pin_memory": False, "save_strategy": "no", "disable_tqdm": True,
    "logging_strategy": "no", "learning_rate": 1e-2, "per_device_train_batch_size": 4,
}  # fmt: skip


def test_supervised_fine_tuning_counts_the_tokens_that_are_no_padding(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    torch.manual_seed(0)
    texts = ["abc" * (1 + i % 4) for i in range(40)]
    trainer = SFTTrainer(
        model=language_model(), args=SFTConfig(str(tmp_path), max_length=32, **COMMON), train_dataset=Dataset.from_dict({"text": texts}),
        processing_class=tokenizer(),
    )  # fmt: skip
    callback = BudgetCallback("300 tokens", {"lr": Rex()}).attach(trainer)
    seen: list[int] = []
    inner = trainer.training_step

    def counting(model: Any, inputs: Any, *rest: Any) -> Any:
        seen.append(int(inputs["attention_mask"].sum()))
        return inner(model, inputs, *rest)

    trainer.training_step = counting
    trainer.train()
    run, result = record(callback), callback.result
    assert result.ended_by == "tokens" and result.spent["tokens"] == sum(seen) <= 300 < sum(seen) + max(seen)
    assert result.spent["examples"] == 4 * len(seen) and all(loss is not None for loss in run.steps.loss)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.0


def test_group_relative_policy_optimization_ends_on_rollouts(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    settings = GRPOConfig(str(tmp_path), num_generations=4, max_completion_length=4, **COMMON)

    def reward(completions: list[str], **kwargs: Any) -> list[float]:
        callback.meter.charge("rollout", rollouts=len(completions))
        return [float(text.count("a")) for text in completions]

    trainer = GRPOTrainer(
        model=language_model(), reward_funcs=reward, args=settings, train_dataset=Dataset.from_dict({"prompt": ["ab", "cd"] * 8}),
        processing_class=tokenizer(),
    )  # fmt: skip
    callback = BudgetCallback("20 rollouts", {"lr": Rex()}).attach(trainer)
    trainer.train()
    run, result = record(callback), callback.result
    assert result.ended_by == "rollouts" and result.spent["rollouts"] == 20 and result.steps == 5
    # generated positions are not trained on: what is counted passes the model with a gradient
    assert result.spent["examples"] == 20 and 5 * 4 * 3 <= result.spent["tokens"] <= 5 * 4 * 6
    assert run.steps.knobs["lr"] == pytest.approx([1e-2 * Rex().value(i / 5) for i in range(5)])
