"""Prompts: where questions come from."""

from __future__ import annotations

from outlay.prompts.base import PromptSource, Question, Questions

METHODS: dict[str, type] = {}

__all__ = [
    "METHODS",
    "PromptSource",
    "Question",
    "Questions",
]
