"""Repairs: what becomes of groups that carry no signal."""

from __future__ import annotations

from outlay.repairs.base import Attempt, Group, Mending, Repair, Replays, Workshop
from outlay.repairs.drop import Drop
from outlay.repairs.easier import Easier
from outlay.repairs.expert_failures import ExpertFailures
from outlay.repairs.guide import Guide
from outlay.repairs.hint_prefix import HintPrefix
from outlay.repairs.refill import Refill
from outlay.repairs.replay import Replay
from outlay.repairs.scaffold import Scaffold
from outlay.repairs.tree import Tree

METHODS: dict[str, type] = {
    "drop": Drop,
    "refill": Refill,
    "replay": Replay,
    "scaffold": Scaffold,
    "hint_prefix": HintPrefix,
    "guide": Guide,
    "tree": Tree,
    "expert_failures": ExpertFailures,
    "easier": Easier,
}

__all__ = [
    "METHODS",
    "Attempt",
    "Drop",
    "Easier",
    "ExpertFailures",
    "Group",
    "Guide",
    "HintPrefix",
    "Mending",
    "Refill",
    "Repair",
    "Replay",
    "Replays",
    "Scaffold",
    "Tree",
    "Workshop",
]
