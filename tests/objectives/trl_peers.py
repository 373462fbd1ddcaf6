"""TRL's own trainers on a tiny model, so that their losses can be compared with ours on the batches they make."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from outlay.models import Transformer
from outlay.sources.base import IGNORED

#: the model that is trained and the one that it is compared with
TRAINED, START = (Transformer(hidden=16, layers=1, heads=2, context=64).build(seed) for seed in (0, 1))

PAIRS = [
    {"prompt": "ab", "chosen": "cdef", "rejected": "gh"},
    {"prompt": "x", "chosen": "yz", "rejected": "wwwww"},
    {"prompt": "hello", "chosen": "u", "rejected": "vv"},
    {"prompt": "q", "chosen": "rst", "rejected": "t"},
]


def peer(
    trainer: type, config: type, rows: Sequence[dict[str, Any]], folder: Path, reference: bool = True, **settings: Any
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return one of TRL's trainers with copies of the two models, and its first batch: all rows."""
    from datasets import Dataset

    given = {"ref_model": copy.deepcopy(START.module)} if reference else {}
    made = trainer(
        model=copy.deepcopy(TRAINED.module),
        args=config(
            output_dir=str(folder), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
            per_device_train_batch_size=len(rows), **settings,
        ),
        train_dataset=Dataset.from_list(list(rows)), processing_class=TRAINED.tokenizer, **given,
    )  # fmt: skip
    made.model.eval()
    return made, next(iter(made.get_train_dataloader()))


def as_ours(batch: dict[str, torch.Tensor], **columns: Sequence[Any]) -> dict[str, torch.Tensor]:
    """Return a batch of TRL's in our layout, with further columns."""
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED) if "completion_mask" in batch else batch["labels"]
    made = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    return made | {name: torch.tensor(values) for name, values in columns.items()}


def agree(ours: torch.Tensor, theirs: torch.Tensor, our_model: nn.Module, their_model: nn.Module) -> None:
    """Hold that two losses and their gradients are the same to single precision."""
    assert abs(float(ours) - float(theirs)) <= 2e-6 * max(1.0, abs(float(theirs))), (float(ours), float(theirs))
    mine = torch.autograd.grad(ours, list(our_model.parameters()))
    other = torch.autograd.grad(theirs, list(their_model.parameters()))
    scale = max(float(g.abs().max()) for g in other)
    assert scale > 0
    assert all(float((a - b).abs().max()) <= 1e-4 * scale for a, b in zip(mine, other, strict=True))
