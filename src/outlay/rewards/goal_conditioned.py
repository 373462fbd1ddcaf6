"""Goal-conditioned: how near the answer's state is to those of good endings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.rewards.base import Answer, Judge, Verdict, failed, passed, unjudged
from outlay.schedules.base import require

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GoalConditioned:
    """Q = cos(h, g): h is the model's hidden state at the last token so far, g the mean of the states at the ends of known good answers.

    Answers that are not finished are scored as well, so that those which lead nowhere can be stopped early. Whether the paper takes the cosine
    or the product, which layer, and the threshold are not known to us: the cosine and the last layer are taken, and 0 separates.

    Args:
        path: folder or hub name of a reward model, or of any model of transformers with hidden states.
        endings: JSON Lines file of good answers, one object a line with ``prompt`` and ``answer``.
        layer: which hidden states, as transformers counts them: -1 for the last.
        threshold: lowest Q that passes, in [-1, 1].
        batch_size: answers scored side by side, > 0.
        end_mark: put the end mark after answers that ended.
        special_tokens: let the tokenizer add its own marks.
        dtype: type of the weights.
    """

    title: ClassVar[str] = "Goal-conditioned score"
    paper: ClassVar[Paper | None] = Paper("2407.13887", "Learning Goal-Conditioned Representations for Language Reward Models", 2024)

    path: str
    endings: Path
    layer: int = -1
    threshold: float = 0.0
    batch_size: int = 16
    end_mark: bool = True
    special_tokens: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        require(-1 <= self.threshold <= 1, f"threshold must lie in [-1, 1], found {self.threshold}")
        require(self.batch_size > 0, f"batch_size must be > 0, found {self.batch_size}")

    @property
    def bounds(self) -> tuple[float, float]:
        """-1 and 1."""
        return -1.0, 1.0

    def open(self, context: Context) -> Judge:
        """Load the model and work out the goal.

        Raises:
            MissingExtra: without transformers.
            InputError: when there is no such model or layer, or the good answers cannot be read.
        """
        from outlay.prompts.base import Question
        from outlay.rewards.reading_texts import load_whole, prompts_and_answers

        pairs = prompts_and_answers(self.endings, "good answers")
        model, tokenizer = load_whole("AutoModel", self.path, context, self.dtype)
        layers = model.config.num_hidden_layers + 1
        if not -layers <= self.layer < layers:
            raise InputError(f"layer must lie in {-layers}..{layers - 1} for this model, found {self.layer}")
        states = _States(self, model, tokenizer, context.device)
        good = [Answer(Question(prompt), text, 0, True, 0, 0) for prompt, text in pairs]
        found = [state for state in states(good) if state is not None]
        if not found:
            raise InputError(f"every good answer in {self.endings} is longer than the model reads")
        return _Judge(self, states, goal_state(found))


def goal_state(states: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the goal, (width,): the mean of the states (width,) at the ends of good answers."""
    import torch

    return torch.stack(list(states)).mean(0)


def goal_scores(states: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Return Q in [-1, 1], (...), of states (..., width)."""
    from torch.nn import functional

    return functional.cosine_similarity(states, goal.expand_as(states), dim=-1).clamp(-1.0, 1.0)


@dataclass(frozen=True)
class _States:
    rule: GoalConditioned
    model: Any
    tokenizer: Any
    device: Any

    def __call__(self, answers: Sequence[Answer]) -> list[torch.Tensor | None]:
        """Return the state (width,) at every answer's last token; None where it has none or is longer than the model reads."""
        import torch

        from outlay.rewards.reading_texts import batches, encoded, longest_text

        rows = encoded(answers, self.tokenizer, self.rule.special_tokens, self.rule.end_mark)
        longest = longest_text(self.model)
        read = [place for place, row in enumerate(rows) if row and (longest is None or len(row) <= longest)]
        found: list[torch.Tensor | None] = [None] * len(rows)
        with torch.inference_mode():
            for places, batch in batches([rows[place] for place in read], self.rule.batch_size, self.tokenizer.pad_token_id, self.device):
                states = self.model(**batch, output_hidden_states=True).hidden_states[self.rule.layer].float()
                for line, place in enumerate(places):
                    found[read[place]] = states[line, len(rows[read[place]]) - 1]
        return found


@dataclass(frozen=True)
class _Judge:
    rule: GoalConditioned
    states: _States
    goal: torch.Tensor

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [
            unjudged("no text, or one longer than the model reads") if state is None else self._verdict(state)
            for state in self.states(answers)
        ]

    def _verdict(self, state: torch.Tensor) -> Verdict:
        value = float(goal_scores(state, self.goal))
        return passed(value) if value >= self.rule.threshold else failed(value)
