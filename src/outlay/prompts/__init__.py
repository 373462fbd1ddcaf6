"""Prompts: where questions come from."""

from __future__ import annotations

from outlay.prompts.base import PromptSource, Question, Questions
from outlay.prompts.file import FilePrompts
from outlay.prompts.reasoning import ReasoningPrompts

METHODS: dict[str, type] = {
    "reasoning": ReasoningPrompts,
    "file": FilePrompts,
}

__all__ = [
    "METHODS",
    "FilePrompts",
    "PromptSource",
    "Question",
    "Questions",
    "ReasoningPrompts",
]
