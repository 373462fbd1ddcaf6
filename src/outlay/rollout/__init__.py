"""Rollout engines: who writes completions."""

from __future__ import annotations

from outlay.rollout.base import Completion, Engine, Generator, Leave, LogitsHook, Request, Sampling, Work, sample_stream
from outlay.rollout.local import Local

METHODS: dict[str, type] = {
    "local": Local,
}

__all__ = [
    "METHODS",
    "Completion",
    "Engine",
    "Generator",
    "Leave",
    "Local",
    "LogitsHook",
    "Request",
    "Sampling",
    "Work",
    "sample_stream",
]
