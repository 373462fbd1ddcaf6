"""Answering: questions as tokens for an engine, and what it wrote as answers for judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outlay.prompts.base import Question
from outlay.rewards.base import Answer
from outlay.rollout.base import Completion


def encode(questions: Sequence[Question], tokenizer: Any) -> list[tuple[int, ...]]:
    """Return every question's tokens, as they are, without marks of the tokenizer's own."""
    found = tokenizer([question.text for question in questions], add_special_tokens=False)["input_ids"]
    return [tuple(ids) for ids in found]


def answer_of(question: Question, written: Completion, tokenizer: Any, limit: int) -> Answer:
    """Return a completion as judges read it: its text without the end mark, other special tokens left visible.

    Args:
        question: what was asked; its place numbers the group.
        written: one completion.
        tokenizer: transformers' tokenizer.
        limit: new tokens that were allowed.
    """
    tokens = list(written.tokens[:-1] if written.ended == "end" else written.tokens)
    text = tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    return Answer(question, text, len(written.tokens), written.ended in ("end", "stop"), limit, question.place)
