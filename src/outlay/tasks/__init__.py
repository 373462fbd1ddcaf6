"""Real data to train on, fetched by package name and checked by digest: text, reasoning problems, images, a pretrained model.

Importing this package loads nothing; each name below is read from its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlay.tasks.corpora import CORPORA, Corpus, Document, documents, split
    from outlay.tasks.fetch import Package, Unavailable, cache_dir, fetch, member, members
    from outlay.tasks.images import IMAGES, Arrays, load
    from outlay.tasks.pretrained import smollm2
    from outlay.tasks.reasoning import TASKS, Problem, ReasoningTask, problems, score, stream

__all__ = [
    "CORPORA",
    "Corpus",
    "Document",
    "documents",
    "split",
    "TASKS",
    "ReasoningTask",
    "Problem",
    "problems",
    "stream",
    "score",
    "IMAGES",
    "Arrays",
    "load",
    "smollm2",
    "Package",
    "Unavailable",
    "cache_dir",
    "fetch",
    "member",
    "members",
]

_HOME = {
    "corpora": ("CORPORA", "Corpus", "Document", "documents", "split"),
    "reasoning": ("TASKS", "ReasoningTask", "Problem", "problems", "stream", "score"),
    "images": ("IMAGES", "Arrays", "load"),
    "pretrained": ("smollm2",),
    "fetch": ("Package", "Unavailable", "cache_dir", "fetch", "member", "members"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
