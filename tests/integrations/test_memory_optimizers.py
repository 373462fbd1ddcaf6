"""Memory-efficient optimizers inside the Hugging Face Trainer: they train, and a run resumed from its checkpoint ends bit by bit alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hosted import identical, language_model, make_trainer, weights

from outlay.optim import AdamW8bit, Apollo, Fira, Frugal, OptimizerSpec, follow
from outlay.projectors import Columns


@pytest.mark.parametrize(
    "spec",
    [Fira(rank=2, period=3), Apollo(rank=2, period=3), Frugal(projector=Columns(0.25), period=3), AdamW8bit()],
    ids=lambda s: type(s).__name__,
)
def test_a_trainer_resumes_bit_by_bit(spec: OptimizerSpec, tmp_path: Path) -> None:
    def made(folder: Path) -> Any:
        model = language_model()
        optimizer = spec.build(list(model.named_parameters()), seed=3)
        follow(optimizer, "lr", 1e-2)
        plan = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        return make_trainer(folder, model=model, optimizers=(optimizer, plan), max_steps=8, save_steps=4, save_strategy="steps")

    whole, cut = made(tmp_path / "whole"), made(tmp_path / "cut")
    before = weights(whole.model)
    whole.train()
    assert not identical(before, weights(whole.model))
    cut.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert identical(weights(whole.model), weights(cut.model))
