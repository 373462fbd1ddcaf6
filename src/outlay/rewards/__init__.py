"""Rewards: what answers are worth."""

from __future__ import annotations

from outlay.rewards.base import Answer, Judge, Reward, Verdict, failed, passed, unjudged
from outlay.rewards.combining import combine, passed_shares, unjudged_shares
from outlay.rewards.exact_answer import Exact
from outlay.rewards.format_tags import BoxedInThought, Format
from outlay.rewards.lengths import Cosine, GroupLength
from outlay.rewards.limits import HardCut, MissingEnd, SoftOverlong, Words
from outlay.rewards.reasoning import Reasoning

METHODS: dict[str, type] = {
    "exact": Exact,
    "reasoning": Reasoning,
    "format": Format,
    "boxed_in_thought": BoxedInThought,
    "cosine": Cosine,
    "group_length": GroupLength,
    "soft_overlong": SoftOverlong,
    "hard_cut": HardCut,
    "missing_end": MissingEnd,
    "words": Words,
}

__all__ = [
    "METHODS",
    "Answer",
    "BoxedInThought",
    "Cosine",
    "Exact",
    "Format",
    "GroupLength",
    "HardCut",
    "Judge",
    "MissingEnd",
    "Reasoning",
    "Reward",
    "SoftOverlong",
    "Verdict",
    "Words",
    "combine",
    "failed",
    "passed",
    "passed_shares",
    "unjudged",
    "unjudged_shares",
]
