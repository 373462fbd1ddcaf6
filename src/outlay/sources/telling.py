"""Telling: what was seen of a generation, for the record, the journal and those who ask for every answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from outlay.repairs.base import Group
from outlay.sources.workshop import Generation


def statistics(work: Generation, kept: Sequence[Group], repaired: bool) -> dict[str, float]:
    """Return what was seen of a generation for the step's record: means over the answers to what was asked, and counts.

    Args:
        work: it, finished.
        kept: groups that are trained on.
        repaired: whether a repair has had a hand in them.
    """
    values = [value for group in work.every for value in group.values]
    attempts = [one for group in work.every for one in group.attempts]
    seen = {
        "reward": _mean(values), "unjudged": float(sum(not one.judged for one in attempts)),
        "length": _mean([float(len(one.completion.tokens)) for one in attempts]),
        "ended": _mean([float(one.completion.ended != "limit") for one in attempts]),
        "varied": _mean([float(group.varied) for group in work.every]),
        "rollouts_generated": float(work.generated), "rollouts_trained": float(sum(len(group.attempts) for group in kept)),
    }  # fmt: skip
    if repaired:
        seen["groups_trained"] = float(len(kept))
        seen["hinted"] = _mean([group.hinted for group in kept])
        seen["too_long"] = float(work.too_long)
        seen["varied_after_repair"] = _mean([float(group.varied) for group in kept])
    for name, verdicts in work.told.items():
        judged = [verdict for verdict in verdicts if verdict.outcome != "unjudged"]
        seen[f"passed/{name}"] = _mean([float(verdict.outcome == "passed") for verdict in judged])
        if len(work.told) > 1:
            seen[f"reward/{name}"] = _mean([verdict.value for verdict in judged])
    return seen


def divided(groups: Sequence[Group]) -> dict[int, int]:
    """Return answers to a question -> how many questions got so many."""
    sizes, counts = np.unique([len(group.attempts) for group in groups], return_counts=True)
    return dict(zip(sizes.astype(int).tolist(), counts.tolist(), strict=True))


def by_kind(groups: Sequence[Group]) -> dict[str, dict[str, float]]:
    """Return what was asked and what came of it by kind of question."""
    kinds: dict[str, list[Group]] = {}
    for group in groups:
        kinds.setdefault(group.question.kind, []).append(group)
    return {
        kind: {
            "asked": float(len(mine)),
            "answers": float(sum(len(group.attempts) for group in mine)),
            "success": _mean([group.rate for group in mine if group.values]),
            "varied": _mean([float(group.varied) for group in mine]),
        }
        for kind, mine in sorted(kinds.items())
    }


def detail(groups: Sequence[Group]) -> dict[str, torch.Tensor]:
    """Return what is known of every answer, each (answers,)."""
    rows = [(group, one) for group in groups for one in group.attempts]
    return {
        "place": torch.tensor([group.question.place for group, _ in rows], dtype=torch.long),
        "arm": torch.tensor([group.arm for group, _ in rows], dtype=torch.long),
        "reward": torch.tensor([one.value for _, one in rows]),
        "judged": torch.tensor([one.judged for _, one in rows], dtype=torch.bool),
        "length": torch.tensor([len(one.completion.tokens) for _, one in rows], dtype=torch.long),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
