"""Sources: what a stage reads."""

from __future__ import annotations

from outlay.sources.arrays import Arrays, Columns
from outlay.sources.base import Batch, Examples, Shuffled, Source, Stream, count_units
from outlay.sources.images import Images

METHODS: dict[str, type] = {
    "arrays": Arrays,
    "images": Images,
}

__all__ = ["METHODS", "Arrays", "Batch", "Columns", "Examples", "Images", "Shuffled", "Source", "Stream", "count_units"]
