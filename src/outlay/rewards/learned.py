"""Learned: a reward model says what answers are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.rewards.base import Answer, Judge, Verdict, failed, passed, unjudged
from outlay.rewards.verifier_and_model import sigmoid
from outlay.schedules.base import require


@dataclass(frozen=True)
class Learned:
    """The score of a reward model: a folder of transformers' sequence classification with one label, as outlay's reward-model runs and TRL's
    RewardTrainer export it. It reads the prompt and the answer as one text.

    With x the model's output: z = (x - mean) / std; then 1 / (1 + exp(-z)) with ``sigmoid``; then clipped. An answer passes when z >= 0.
    What is longer than the model reads cannot be judged.

    Args:
        path: the folder, or a hub name.
        batch_size: answers scored side by side, > 0.
        mean: subtracted, such as the mean score of reference answers.
        std: divided by, > 0.
        sigmoid: whether values are probabilities.
        clip: lowest and highest value; None for no clipping.
        end_mark: put the end mark after answers that ended, as the trainers do.
        special_tokens: let the tokenizer add its own marks, such as one at the start; prompts usually hold them already.
        dtype: type of the weights.
    """

    title: ClassVar[str] = "Learned reward model"
    paper: ClassVar[Paper | None] = Paper("2203.02155", "Training language models to follow instructions with human feedback", 2022)

    path: str
    batch_size: int = 16
    mean: float = 0.0
    std: float = 1.0
    sigmoid: bool = False
    clip: tuple[float, float] | None = None
    end_mark: bool = True
    special_tokens: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        require(self.batch_size > 0, f"batch_size must be > 0, found {self.batch_size}")
        require(math.isfinite(self.mean), f"mean must be finite, found {self.mean}")
        require(0 < self.std < math.inf, f"std must be a finite number > 0, found {self.std}")
        require(self.clip is None or -math.inf < self.clip[0] < self.clip[1] < math.inf, f"clip must rise and be finite, found {self.clip}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the sigmoid and the clipping; infinite without either."""
        low, high = (0.0, 1.0) if self.sigmoid else (-math.inf, math.inf)
        return (low, high) if self.clip is None else (self._clipped(low), self._clipped(high))

    def open(self, context: Context) -> Judge:
        """Load the model.

        Raises:
            MissingExtra: without transformers.
            InputError: when there is no such model, or it has another number of labels than one.
        """
        from outlay.rewards.reading_texts import load_whole

        model, tokenizer = load_whole("AutoModelForSequenceClassification", self.path, context, self.dtype)
        if model.config.num_labels != 1:
            raise InputError(f"{self.path!r} is no reward model: it has {model.config.num_labels} labels instead of one")
        return _Judge(self, model, tokenizer, context.device)

    def value(self, output: float) -> float:
        """Return the reward of the model's output."""
        z = (output - self.mean) / self.std
        return self._clipped(sigmoid(z) if self.sigmoid else z)

    def _clipped(self, value: float) -> float:
        return value if self.clip is None else min(self.clip[1], max(self.clip[0], value))


@dataclass(frozen=True)
class _Judge:
    rule: Learned
    model: Any
    tokenizer: Any
    device: Any

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        import torch

        from outlay.rewards.reading_texts import batches, encoded, longest_text

        rows = encoded(answers, self.tokenizer, self.rule.special_tokens, self.rule.end_mark)
        longest = longest_text(self.model)
        found = [
            unjudged(f"{len(row)} tokens are more than the reward model's {longest}" if row else "there is no text to read") for row in rows
        ]
        read = [place for place, row in enumerate(rows) if row and (longest is None or len(row) <= longest)]
        with torch.inference_mode():
            for places, batch in batches([rows[place] for place in read], self.rule.batch_size, self.tokenizer.pad_token_id, self.device):
                for place, output in zip(places, self.model(**batch).logits[:, 0].float().tolist(), strict=True):
                    found[read[place]] = self._verdict(output)
        return found

    def _verdict(self, output: float) -> Verdict:
        if not math.isfinite(output):
            return unjudged(f"the reward model gave {output}")
        value = self.rule.value(output)
        return passed(value) if output >= self.rule.mean else failed(value)
