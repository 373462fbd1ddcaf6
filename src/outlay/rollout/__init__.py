"""Rollout engines: who writes completions."""

from __future__ import annotations

from outlay.rollout.base import Completion, Engine, Generator, Leave, LogitsHook, Request, Sampling, Work, sample_stream
from outlay.rollout.local import Local
from outlay.rollout.vllm import Vllm

METHODS: dict[str, type] = {
    "local": Local,
    "vllm": Vllm,
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
    "Vllm",
    "Work",
    "sample_stream",
]
