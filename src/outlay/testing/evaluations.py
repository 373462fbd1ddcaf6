"""The contract of exams."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from outlay.context import Context
from outlay.evaluations.base import Exam
from outlay.sources.base import Batch, Source, count_units
from outlay.testing.common import global_generators_untouched, hold


def check_exam(exam: Exam, context: Context, source: Source, model: nn.Module) -> dict[str, float]:
    """Check the exam seam: charges within the stated bound, the same result every time, and the model left as it was.

    Args:
        exam: what is checked.
        context: seed, tokenizer and device.
        source: the stage's, for exams that ask about its held-out part.
        model: on the context's device.

    Returns:
        The metrics.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    name = type(exam).__name__
    model.eval()
    before = _snapshot(model)
    results = []
    exam.open(context, source)  # the first time may import packages, and some of those draw as they are imported
    with global_generators_untouched(name):
        for sitting in (exam.open(context, source), exam.open(context, source)):
            for _ in range(2):
                charged: dict[str, float] = {}

                def charge(batch: Batch, new_tokens: float, charged: dict[str, float] = charged) -> None:
                    positions = batch.get("input_ids", batch.get("labels"))
                    spent = {**count_units(batch), "positions": float(positions.numel()) if positions is not None else 0.0}
                    for unit, amount in {**spent, "new_tokens": new_tokens}.items():
                        charged[unit] = charged.get(unit, 0.0) + amount

                with torch.no_grad():
                    results.append(sitting.run(model, charge))
                hold(charged.get("examples", 0.0) > 0, "an exam charges what it uses", f"{name} charged {charged}")
                bound = sitting.bound()
                over = {unit: amount for unit, amount in charged.items() if amount > bound.get(unit, 0.0)}
                hold(not over, "an exam never charges more than its bound", f"{name} charged {over}, bound {bound}")
    after = _snapshot(model)
    hold(before.keys() == after.keys(), "an exam leaves the model as it was", f"{sorted(before.keys() ^ after.keys())} came or went")
    changed = [key for key in before if not _unchanged(before[key], after[key])]
    hold(not changed, "an exam leaves the model as it was", f"{name} changed {changed[:5]}")
    for result in results:
        hold(repr(result) == repr(results[0]), "the same exam of the same model gives the same result", f"{result} is not {results[0]}")
    hold(bool(results[0]) and all(isinstance(v, float) for v in results[0].values()), "metrics are named numbers", f"found {results[0]}")
    return results[0]


def _snapshot(model: nn.Module) -> dict[str, Any]:
    """Weights, buffers, gradients, what is trained, and every module's mode."""
    kept: dict[str, Any] = {f"tensor {name}": tensor.detach().clone() for name, tensor in model.state_dict().items()}
    kept |= {f"gradient of {name}": None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    kept |= {f"requires_grad of {name}": p.requires_grad for name, p in model.named_parameters()}
    return kept | {f"mode of {name or 'the model'}": module.training for name, module in model.named_modules()}


def _unchanged(before: Any, after: Any) -> bool:
    return torch.equal(before, after) if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor) else before is after
