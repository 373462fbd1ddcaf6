"""Rewards: what answers are worth."""

from __future__ import annotations

from outlay.rewards.base import Answer, Judge, Reward, Verdict, failed, passed, unjudged
from outlay.rewards.clipped_delta import ClippedDelta
from outlay.rewards.code import Code
from outlay.rewards.combining import combine, passed_shares, unjudged_shares
from outlay.rewards.exact_answer import Exact
from outlay.rewards.format_tags import BoxedInThought, Format
from outlay.rewards.fused import Fused
from outlay.rewards.goal_conditioned import GoalConditioned
from outlay.rewards.guarding import judge_guarded
from outlay.rewards.isolated import Isolated, open_judge
from outlay.rewards.learned import Learned
from outlay.rewards.lengths import Cosine, GroupLength
from outlay.rewards.limits import HardCut, MissingEnd, SoftOverlong, Words
from outlay.rewards.math_answer import Math
from outlay.rewards.next_segment import NextSegment
from outlay.rewards.reasoning import Reasoning, ReasoningGym
from outlay.rewards.reference_metric import ReferenceMetric
from outlay.rewards.standardised import Standardised
from outlay.rewards.tool_call import ToolCall
from outlay.rewards.tool_use import ToolUse
from outlay.rewards.verifier_and_model import VerifierAndModel
from outlay.rewards.voting import judgement_reward, vote, winners

METHODS: dict[str, type] = {
    "exact": Exact,
    "reasoning": Reasoning,
    "reasoning_gym": ReasoningGym,
    "math": Math,
    "next_segment": NextSegment,
    "reference_metric": ReferenceMetric,
    "format": Format,
    "boxed_in_thought": BoxedInThought,
    "cosine": Cosine,
    "group_length": GroupLength,
    "soft_overlong": SoftOverlong,
    "hard_cut": HardCut,
    "missing_end": MissingEnd,
    "words": Words,
    "tool_call": ToolCall,
    "tool_use": ToolUse,
    "code": Code,
    "isolated": Isolated,
    "learned": Learned,
    "goal_conditioned": GoalConditioned,
    "fused": Fused,
    "verifier_and_model": VerifierAndModel,
    "clipped_delta": ClippedDelta,
    "standardised": Standardised,
}

__all__ = [
    "METHODS",
    "Answer",
    "BoxedInThought",
    "ClippedDelta",
    "Code",
    "Cosine",
    "Exact",
    "Format",
    "Fused",
    "GoalConditioned",
    "GroupLength",
    "HardCut",
    "Isolated",
    "Judge",
    "Learned",
    "Math",
    "MissingEnd",
    "NextSegment",
    "Reasoning",
    "ReasoningGym",
    "ReferenceMetric",
    "Reward",
    "SoftOverlong",
    "Standardised",
    "ToolCall",
    "ToolUse",
    "Verdict",
    "VerifierAndModel",
    "Words",
    "combine",
    "failed",
    "judge_guarded",
    "judgement_reward",
    "open_judge",
    "passed",
    "passed_shares",
    "unjudged",
    "unjudged_shares",
    "vote",
    "winners",
]
