"""A small language model in the Hugging Face Trainer, and what the tests of all hosts share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from outlay.integrations.transformers import BudgetCallback
from outlay.reporting import RunRecord, read_run
from outlay.testing import FakeClock

VOCABULARY = 32


def language_model(seed: int = 0) -> Any:
    """Return a Llama with about 10,000 parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Rows of tokens; row i has ``lengths[i % len(lengths)]`` of them, padded to the longest."""

    def __init__(self, count: int, lengths: Sequence[int] = (8,), seed: int = 0, on_read: Callable[[], None] | None = None) -> None:
        longest = max(lengths)
        self.ids = torch.randint(3, VOCABULARY, (count, longest), generator=torch.Generator().manual_seed(seed))
        self.mask = torch.tensor([[1] * lengths[i % len(lengths)] + [0] * (longest - lengths[i % len(lengths)]) for i in range(count)])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        mask = self.mask[index]
        return {"input_ids": self.ids[index], "attention_mask": mask, "labels": torch.where(mask.bool(), self.ids[index], -100)}


def make_trainer(folder: Path, rows: Dataset[Any] | None = None, model: Any = None, trainer_class: Any = None, **arguments: Any) -> Any:
    """Return a Trainer of the small language model, 4 rows a batch; ``optimizers``, ``callbacks`` and ``eval_dataset`` are its own."""
    from transformers import Trainer, TrainingArguments

    mine = {name: arguments.pop(name) for name in ("optimizers", "callbacks", "eval_dataset") if name in arguments}
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "learning_rate": 1e-2, "report_to": [], "use_cpu": True,
        "dataloader_pin_memory": False, "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no",
        "lr_scheduler_type": "constant",
    }  # fmt: skip
    settings = TrainingArguments(output_dir=str(folder), **{**defaults, **arguments})
    return (trainer_class or Trainer)(model=model or language_model(), args=settings, train_dataset=rows or Rows(64), **mine)


def ticking(trainer: Any, clock: FakeClock, seconds: Callable[[], float] | float, account: str = "training_step") -> None:
    """Let every call of a trainer's method take time on the clock; to be called before a callback is attached."""
    inner = getattr(trainer, account)

    def slow(*arguments: Any, **named: Any) -> Any:
        clock.advance(seconds() if callable(seconds) else seconds)
        return inner(*arguments, **named)

    setattr(trainer, account, slow)


def record(callback: Any) -> RunRecord:
    """Return the run as its directory tells it, having checked that its books add up."""
    run = read_run(callback.run.folder)
    assert run.notes == ()
    assert run.ended_by == callback.result.ended_by
    for unit, amount in callback.result.spent.items():
        assert abs(run.spent.get(unit, 0.0) - amount) <= 1e-9 * max(1.0, amount), unit
    return run


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Return a copy of a model's weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def identical(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Say whether two models agree in every bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint of the Trainer holds of the callback."""
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"][BudgetCallback.__name__]
    return state
