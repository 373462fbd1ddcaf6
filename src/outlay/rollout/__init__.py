"""Rollout engines: who writes completions."""

from __future__ import annotations

from outlay.rollout.base import Completion, Engine, Generator, Leave, LogitsHook, Request, Sampling, Work, sample_stream

METHODS: dict[str, type] = {}

__all__ = [
    "METHODS",
    "Completion",
    "Engine",
    "Generator",
    "Leave",
    "LogitsHook",
    "Request",
    "Sampling",
    "Work",
    "sample_stream",
]
