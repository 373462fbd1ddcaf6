"""Sources: what a stage reads."""

from __future__ import annotations

from outlay.sources.arrays import Arrays, Columns
from outlay.sources.base import Batch, Examples, Shuffled, Source, Stream, Watches, count_units
from outlay.sources.images import Images
from outlay.sources.mixture import Mixture
from outlay.sources.pairs import Pairs
from outlay.sources.preferences import Preferences
from outlay.sources.reasoning import Reasoning
from outlay.sources.rollouts import Rollouts
from outlay.sources.table import Table
from outlay.sources.text import Blocks, Text
from outlay.sources.tool_calls import ToolCalls

METHODS: dict[str, type] = {
    "arrays": Arrays,
    "images": Images,
    "text": Text,
    "table": Table,
    "preferences": Preferences,
    "tool_calls": ToolCalls,
    "reasoning": Reasoning,
    "rollouts": Rollouts,
    "mixture": Mixture,
}

__all__ = [
    "METHODS",
    "Arrays",
    "Batch",
    "Blocks",
    "Columns",
    "Examples",
    "Images",
    "Mixture",
    "Pairs",
    "Preferences",
    "Reasoning",
    "Rollouts",
    "Shuffled",
    "Source",
    "Stream",
    "Table",
    "Text",
    "ToolCalls",
    "Watches",
    "count_units",
]
