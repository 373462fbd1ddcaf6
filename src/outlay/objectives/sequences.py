"""Sequences: what objectives over whole answers share; see ``outlay.sequences``."""

from __future__ import annotations

from outlay.sequences import (
    Frozen,
    answer_logits,
    answer_mask,
    attached,
    bounded,
    chosen_logits,
    entropies,
    evaluating,
    frozen_log_probs,
    group_index,
    in_pieces,
    judged_rows,
    knob,
    log_probs_of,
    on_answers,
    row_means,
    row_sums,
    shifted,
    token_log_probs,
)

__all__ = [
    "Frozen",
    "answer_logits",
    "answer_mask",
    "attached",
    "bounded",
    "chosen_logits",
    "entropies",
    "evaluating",
    "frozen_log_probs",
    "group_index",
    "in_pieces",
    "judged_rows",
    "knob",
    "log_probs_of",
    "on_answers",
    "row_means",
    "row_sums",
    "shifted",
    "token_log_probs",
]
