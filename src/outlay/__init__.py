"""outlay: the best model your budget buys.

You declare what you may spend; everything that changes during training is a function of what has been spent; everything scarce is divided
by an allocator; everything spent is metered and shown.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from outlay.budget import Budget, Price
    from outlay.catalog import listing as methods
    from outlay.catalog import make
    from outlay.errors import InputError, OutlayError
    from outlay.knob import Knob
    from outlay.meter import Meter
    from outlay.record import Record
    from outlay.reporting import report
    from outlay.train import Evaluate, Recipe, Result, Stage, load_recipe, plan
    from outlay.train.run import replay, resume, run

#: public name -> (module, attribute); imported on first use, so that ``import outlay`` costs nothing
_PUBLIC: dict[str, tuple[str, str]] = {
    "Budget": ("outlay.budget", "Budget"),
    "Evaluate": ("outlay.train", "Evaluate"),
    "InputError": ("outlay.errors", "InputError"),
    "Knob": ("outlay.knob", "Knob"),
    "Meter": ("outlay.meter", "Meter"),
    "OutlayError": ("outlay.errors", "OutlayError"),
    "Price": ("outlay.budget", "Price"),
    "Recipe": ("outlay.train", "Recipe"),
    "Record": ("outlay.record", "Record"),
    "Result": ("outlay.train", "Result"),
    "Stage": ("outlay.train", "Stage"),
    "load_recipe": ("outlay.train", "load_recipe"),
    "make": ("outlay.catalog", "make"),
    "methods": ("outlay.catalog", "listing"),
    "plan": ("outlay.train", "plan"),
    "replay": ("outlay.train", "replay"),
    "report": ("outlay.reporting", "report"),
    "resume": ("outlay.train", "resume"),
    "run": ("outlay.train", "run"),
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'outlay' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
