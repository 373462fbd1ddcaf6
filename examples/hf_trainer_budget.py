"""End a Hugging Face Trainer on a budget: a small Llama reads the bytes of Python's own standard library, REX on the budget's clock.

    python examples/hf_trainer_budget.py [SECONDS]

Everything is inside the budget: the evaluation before, the training, the evaluation after and the checkpoint.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from outlay.integrations.transformers import BudgetCallback
from outlay.reporting import read_run
from outlay.schedules import Rex, Warmup

PEAK = 3e-3


def windows(files: list[Path], width: int = 128) -> list[dict[str, torch.Tensor]]:
    """Cut the files' bytes into rows."""
    data = torch.tensor(list(b"".join(file.read_bytes() for file in files)), dtype=torch.int64)
    return [{"input_ids": row, "labels": row} for row in data[: len(data) // width * width].view(-1, width)]


def main() -> None:
    """Spend the budget and print what it bought."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=256, hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=128
    )
    settings = TrainingArguments(
        "runs/hf-trainer", learning_rate=PEAK, per_device_train_batch_size=16, per_device_eval_batch_size=16, eval_strategy="steps",
        eval_steps=100_000, eval_on_start=True, save_steps=100_000, save_total_limit=1, report_to=[], use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False, logging_strategy="no",
    )  # fmt: skip
    trainer: Any = Trainer(LlamaForCausalLM(shape), settings, train_dataset=windows(files[::2]), eval_dataset=windows(files[1::16])[:256])
    callback = BudgetCallback(f"{seconds}s", {"lr": Warmup(0.02, Rex())}).attach(trainer)
    trainer.train()
    result, run = callback.result, read_run(callback.run.folder)  # type: ignore[union-attr]
    assert result is not None
    print(f"{result.spent['seconds']:.2f} s of {seconds} s spent, ended by {result.ended_by}, {result.steps} steps")
    if not result.steps:
        raise SystemExit(f"no step fitted into {seconds} s: setting up and the evaluations took them all; give it more")
    print(
        f"learning rate / peak: {run.steps.knobs['lr'][-1] / PEAK:.6f} in the last step, {trainer.optimizer.param_groups[0]['lr'] / PEAK:g} after"
    )  # type: ignore[operator]
    print(f"held-out loss {result.metrics_start['eval_loss']:.4f} -> {result.metrics['eval_loss']:.4f}")
    print(f"outlay report {result.folder}")


if __name__ == "__main__":
    main()
