"""Let a teacher choose what TRL's GRPOTrainer generates for, on a budget: a tiny Llama learns which letters are asked for.

    python examples/trl_teacher.py [SECONDS]

Two of the four kinds of prompt have something to teach. Of the others one is right whatever is written and one is never right: groups whose
rewards are all alike have no advantages, so SEC turns away from them, and back to an even division once everything that can be learnt is.
The table shows what it chose, quarter by quarter.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from outlay.integrations.transformers import BudgetCallback
from outlay.integrations.trl import TeacherCallback
from outlay.schedules import Rex
from outlay.teachers import Sec

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789?"
WANTED = {"vowels": "aeiou", "digits": "0123456789", "anything": LETTERS, "impossible": ""}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of single letters."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<pad>", "<eos>", *LETTERS])}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", padding_side="left")


def main() -> None:
    """Spend the budget and print what was chosen."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    torch.manual_seed(0)
    rows = [{"prompt": f"{kind}{i}?", "kind": kind} for kind in WANTED for i in range(10)]
    shape = LlamaConfig(
        vocab_size=len(LETTERS) + 2, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    settings = GRPOConfig(
        "runs/trl-teacher", learning_rate=1e-3, per_device_train_batch_size=64, num_generations=8, max_completion_length=6, report_to=[],
        use_cpu=True, bf16=False, disable_tqdm=True, dataloader_pin_memory=False, logging_strategy="no", save_strategy="no",
    )  # fmt: skip
    quarters: list[dict[str, list[float]]] = [{kind: [] for kind in WANTED} for _ in range(4)]

    def reward(completions: list[str], kind: list[str], **columns: Any) -> list[float]:
        shares = [sum(letter in WANTED[one] for letter in text) / max(len(text), 1) for text, one in zip(completions, kind, strict=True)]
        shares = [1.0 if one == "anything" else share for one, share in zip(kind, shares, strict=True)]
        for one, share in zip(kind, shares, strict=True):
            quarters[min(int(4 * budget.meter.progress), 3)][one].append(share)
        return shares

    trainer: Any = GRPOTrainer(
        LlamaForCausalLM(shape), reward, settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer()
    )
    teacher = TeacherCallback(Sec(tau=0.3), category="kind").attach(trainer)
    budget = BudgetCallback(f"{seconds:g}s", {"lr": Rex()}).attach(trainer)
    trainer.train()
    assert budget.result is not None
    print(f"{budget.result.spent['seconds']:.2f} s of {seconds:g} s spent, {budget.result.steps} steps")
    print("questions (mean reward)" + "".join(f"{f'quarter {i + 1}':>16}" for i in range(4)))
    for kind in WANTED:
        cells = [f"{len(one[kind]) // 8} ({sum(one[kind]) / len(one[kind]):.2f})" if one[kind] else "0" for one in quarters]
        print(f"{kind:23}" + "".join(f"{cell:>16}" for cell in cells))
    print("in all: " + ", ".join(f"{kind} {count}" for kind, count in teacher.asked.items()))


if __name__ == "__main__":
    main()
