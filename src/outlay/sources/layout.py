"""Layout: answers as the columns of a batch; ``outlay.objectives.sequences`` says what each holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from outlay.sources.base import IGNORED, Batch
from outlay.sources.pairs import MULTIPLE


@dataclass(frozen=True)
class Row:
    """One answer.

    Args:
        prompt: its tokens.
        answer: its tokens, end mark included.
        logprobs: of the answer's tokens when they were sampled; 0 for a demonstration.
        group: answers to the same question carry the same number.
        value: what it is worth.
        judged: whether every judge could tell.
        ended: whether it ended by itself.
        greedy_value: what the likeliest answer to its question is worth.
        demonstration: whether it is the reference answer.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    logprobs: tuple[float, ...]
    group: int
    value: float
    judged: bool
    ended: bool
    greedy_value: float
    demonstration: bool


def lay_out(rows: Sequence[Row], padding: int) -> Batch:
    """Return the rows as columns, padded on the right with the token ``padding`` to a multiple of ``MULTIPLE``."""
    width = max((len(row.prompt) + len(row.answer) for row in rows), default=1)
    width = -(-width // MULTIPLE) * MULTIPLE
    starts = torch.tensor([len(row.prompt) for row in rows], dtype=torch.long)[:, None]
    ends = starts + torch.tensor([len(row.answer) for row in rows], dtype=torch.long)[:, None]
    here = torch.arange(width)
    inside = here < ends
    answered = inside & (here >= starts)
    ids = torch.full((len(rows), width), padding, dtype=torch.long)
    ids[inside] = torch.tensor([token for row in rows for token in row.prompt + row.answer], dtype=torch.long)
    labels = torch.where(answered, ids, IGNORED)
    behaviour = torch.zeros(len(rows), width)
    behaviour[answered] = torch.tensor([logprob for row in rows for logprob in row.logprobs])
    return {
        "input_ids": ids, "attention_mask": inside.long(), "labels": labels, "behaviour": behaviour,
        "group": torch.tensor([row.group for row in rows], dtype=torch.long), "reward": torch.tensor([row.value for row in rows]),
        "judged": torch.tensor([row.judged for row in rows], dtype=torch.bool), "ended": torch.tensor([row.ended for row in rows], dtype=torch.bool),
    }  # fmt: skip
