"""Pairs: a prompt and the answer to learn, padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from outlay.errors import InputError
from outlay.sources.base import IGNORED, Batch

#: widths of batches are rounded up to a multiple of this, so that shapes repeat
MULTIPLE = 8


class Pairs:
    """Prompt-answer pairs as token ids; only the answer (and the end mark) is labelled. Batches are padded on the right.

    Args:
        pairs: (prompt, answer) texts, prompt already in the form the model is to see.
        tokenizer: transformers' tokenizer with ``pad_token_id`` and ``eos_token_id``.
        longest: longest sequence in tokens; a longer pair is refused.
        multiple: lengths are rounded up to a multiple of this, so that shapes repeat.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], tokenizer: Any, longest: int, multiple: int = MULTIPLE) -> None:
        prompts = tokenizer([prompt for prompt, _ in pairs], add_special_tokens=False)["input_ids"] if pairs else []
        answers = tokenizer([answer for _, answer in pairs], add_special_tokens=False)["input_ids"] if pairs else []
        self._ids = [(prompt, [*answer, tokenizer.eos_token_id]) for prompt, answer in zip(prompts, answers, strict=True)]
        self._padding, self._multiple = tokenizer.pad_token_id, multiple
        for (prompt, answer), (text, _) in zip(self._ids, pairs, strict=True):
            if len(prompt) + len(answer) > longest:
                raise InputError(
                    f"a pair is {len(prompt) + len(answer)} tokens long and the limit is {longest}: {text[:60]!r}...; raise longest"
                )

    def __len__(self) -> int:
        return len(self._ids)

    def collate(self, indices: Sequence[int]) -> Batch:
        """Return ``input_ids``, ``attention_mask`` and ``labels``, each (examples, tokens)."""
        rows = [self._ids[i] for i in indices]
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        width = -(-width // self._multiple) * self._multiple
        ids = torch.full((len(rows), width), self._padding, dtype=torch.long)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        for i, (prompt, answer) in enumerate(rows):
            ids[i, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            mask[i, : len(prompt) + len(answer)] = 1
            labels[i, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def trimmed(batch: Batch) -> Batch:
    """Return the batch without the columns of padding that all its rows end in, but for what rounds the width up."""
    width = batch["input_ids"].shape[1]
    longest = int(batch["attention_mask"].sum(1).max()) if len(batch["attention_mask"]) else width
    wanted = min(width, -(-longest // MULTIPLE) * MULTIPLE)
    return {name: column[:, :wanted] if column.dim() == 2 and column.shape[1] == width else column for name, column in batch.items()}
