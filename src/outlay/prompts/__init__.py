"""Prompts: where questions come from."""

from __future__ import annotations

from outlay.prompts.base import ArmedQuestions, PromptSource, Question, Questions
from outlay.prompts.file import FilePrompts
from outlay.prompts.pool import PoolPrompts
from outlay.prompts.reasoning import ReasoningPrompts
from outlay.prompts.reasoning_gym import ReasoningGymPrompts
from outlay.prompts.segments import SegmentPrompts

METHODS: dict[str, type] = {
    "reasoning": ReasoningPrompts,
    "reasoning_gym": ReasoningGymPrompts,
    "file": FilePrompts,
    "segments": SegmentPrompts,
    "pool": PoolPrompts,
}

__all__ = [
    "METHODS",
    "ArmedQuestions",
    "FilePrompts",
    "PoolPrompts",
    "PromptSource",
    "Question",
    "Questions",
    "ReasoningGymPrompts",
    "ReasoningPrompts",
    "SegmentPrompts",
]
