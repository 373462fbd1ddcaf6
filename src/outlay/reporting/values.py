"""What of a journal's values is a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite_number(value: Any) -> float | None:
    """Return a finite number as it is, None for anything else."""
    kind = type(value)  # JSON gives exact types, and true is no number
    return value if (kind is float or kind is int) and math.isfinite(value) else None


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep the entries that are finite numbers."""
    return {name: value for name, raw in values.items() if (value := finite_number(raw)) is not None}
