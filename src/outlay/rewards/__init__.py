"""Rewards: what answers are worth."""

from __future__ import annotations

from outlay.rewards.base import Answer, Judge, Reward, Verdict, failed, passed, unjudged

METHODS: dict[str, type] = {}

__all__ = [
    "METHODS",
    "Answer",
    "Judge",
    "Reward",
    "Verdict",
    "failed",
    "passed",
    "unjudged",
]
