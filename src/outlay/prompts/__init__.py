"""Prompts: where questions come from."""

from __future__ import annotations

from outlay.prompts.base import PromptSource, Question, Questions
from outlay.prompts.file import FilePrompts
from outlay.prompts.reasoning import ReasoningPrompts
from outlay.prompts.reasoning_gym import ReasoningGymPrompts
from outlay.prompts.segments import SegmentPrompts

METHODS: dict[str, type] = {
    "reasoning": ReasoningPrompts,
    "reasoning_gym": ReasoningGymPrompts,
    "file": FilePrompts,
    "segments": SegmentPrompts,
}

__all__ = [
    "METHODS",
    "FilePrompts",
    "PromptSource",
    "Question",
    "Questions",
    "ReasoningGymPrompts",
    "ReasoningPrompts",
    "SegmentPrompts",
]
