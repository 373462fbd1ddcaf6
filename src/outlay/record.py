"""Record: the one thing that flows. What a step did and saw; controllers, teachers, meter, journal and display all read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Record:
    """What one step or one evaluation did and saw.

    Args:
        kind: ``"step"`` for an optimizer update (or one that was skipped), ``"evaluation"`` for an evaluation.
        step: number of updates finished in the whole run, counted from 1 after the first.
        stage: name of the stage that was being spent.
        progress: share of the stage's budget that had been spent when the step's knobs were read, in [0, 1].
        loss: mean loss over the batch's supervised units; None for an evaluation.
        gradient_norm: norm of the whole gradient before clipping; None for an evaluation.
        knobs: the values followed in this step, by knob.
        charges: what the step used of each unit (tokens, examples, flops ...), seconds left out.
        metrics: what else was measured, by name; evaluations put their results here.
        outcome: ``"ok"``, or ``"skipped"`` when the update was withheld because the loss or gradient was not finite.
        detail: per-item values (losses, rewards, lengths) for those who ask for them; tensors of shape (items,).
    """

    kind: Literal["step", "evaluation"]
    step: int
    stage: str
    progress: float
    loss: float | None = None
    gradient_norm: float | None = None
    knobs: Mapping[str, float] = field(default_factory=dict)
    charges: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    outcome: Literal["ok", "skipped"] = "ok"
    detail: Mapping[str, Any] = field(default_factory=dict)

    def quantity(self, name: str) -> float | None:
        """Return ``loss``, ``gradient_norm`` or a metric by name; None when this record does not hold it."""
        if name == "loss":
            return self.loss
        if name == "gradient_norm":
            return self.gradient_norm
        return self.metrics.get(name)
